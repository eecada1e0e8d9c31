//! Links and limits of a network, by its user's id.

use crate::controlled::Controlled;
use crate::isolated;
use crate::machine::INTERFACE;
use crate::peer::Peer;
use crate::{Frame, frame};

/// A load that lasts until it is stopped.
const SENDING: &str = "check=pci net=send seconds=1000000";
const RECEIVING: &str = "check=pci net=receive seconds=1000000";
const PLACEMENTS: [&[&str]; 2] = [&[], &["--single-process"]];

/// Frames that wait, to the last one.
fn take(peer: &mut Peer) -> u64 {
    let mut frames = 0;
    while peer.next().is_some() {
        frames += 1;
    }
    frames
}

fn wait_for_frames(peer: &mut Peer, mut count: u64) {
    while count > 0 {
        count -= u64::from(peer.next().is_some());
    }
}

#[test]
fn a_cable_that_is_out_carries_nothing_whoever_serves_it() {
    isolated(|| {
        for placement in PLACEMENTS {
            let mut peer = Peer::new();
            let machine = Controlled::start(placement, "", SENDING);
            wait_for_frames(&mut peer, 100);
            machine.done(&["net-link", "lan", "down"]);
            for _ in 0..2 {
                machine.settle();
                take(&mut peer);
                // The guest goes on and its frames go nowhere.
                machine.wait_for(1, machine.given_back(1) + 1000);
                assert_eq!(peer.next(), None);
                if placement.is_empty() {
                    machine.kill_network();
                }
            }
            machine.done(&["net-link", "net0", "up"]);
            wait_for_frames(&mut peer, 100);
        }
    });
}

#[test]
fn limits_hold_each_way_are_lifted_and_survive_the_process() {
    isolated(|| {
        for placement in PLACEMENTS {
            let mut peer = Peer::new();
            let machine = Controlled::start(placement, ",limit-tx-ops=0,limit-rx-ops=1", SENDING);
            for limit in ["ops=0,tx", "bytes=0,tx", "ops=0", "bytes=0"] {
                for _ in 0..2 {
                    machine.settle();
                    take(&mut peer);
                    let before = machine.given_back(1);
                    machine.settle();
                    // Each time that it starts it may send one.
                    assert!(machine.given_back(1) <= before + 1 && take(&mut peer) <= 1);
                    if placement.is_empty() {
                        machine.kill_network();
                    }
                }
                machine.done(&["rate-limit", "lan", "none"]);
                wait_for_frames(&mut peer, 100);
                machine.done(&["rate-limit", "lan", limit]);
            }
        }
    });
}

#[test]
fn frames_to_the_guest_wait_for_their_limit() {
    isolated(|| {
        for placement in PLACEMENTS {
            let mut peer = Peer::new();
            let machine = Controlled::start(placement, ",limit-ops=5,limit-rx-ops=0", RECEIVING);
            // The greeting goes out: that direction has five each second.
            while peer.next() != Some(Frame::Hello) {}
            peer.bind(INTERFACE);
            for number in 0..100 {
                assert!(peer.send(&frame::make(0, number, 60)));
            }
            machine.settle();
            assert!(machine.given_back(0) <= 4);
            machine.done(&["rate-limit", "lan", "ops=1000000,rx"]);
            machine.wait_for(0, 90);
        }
    });
}
