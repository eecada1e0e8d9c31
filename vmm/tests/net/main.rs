//! Networks from end to end: the built-in guest at one end, a packet socket at the other, a tap
//! between them in a network namespace of the test. Without the right to make one these tests say so
//! and do nothing.

mod control;
mod controlled;
mod frame;
mod machine;
mod peer;

use std::fs::File;

use rustix::thread::UnshareFlags;

use self::frame::Frame;
use self::machine::{INTERFACE, Load, Machine, Setup, setups};
use self::peer::{Peer, Tally};

const FRAMES: u64 = 2000;
/// Frames on their way to the guest and back: far less than a tap holds.
const WINDOW: u64 = 32;
/// Kills of a test, and frames that come back between two of them.
const KILLS: u64 = 5;
const FRAMES_OF_A_LIFE: u64 = 2000;

/// Runs in a namespace on a thread of its own.
fn isolated(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        // SAFETY: the thread is new and shares nothing that depends on its namespace.
        let entered = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
        if let Err(error) = entered {
            eprintln!("SKIPPED: no network namespace can be made here: {error}");
            return;
        }
        for device in ["/dev/net/tun", "/dev/kvm"] {
            if let Err(error) = File::open(device) {
                eprintln!("SKIPPED: {device} cannot be used here: {error}");
                return;
            }
        }
        test();
    };
    std::thread::spawn(run).join().expect("the test passes");
}

fn everywhere(test: impl Fn(Setup) + Send + 'static) {
    isolated(move || {
        for setup in setups() {
            println!("{setup:?}");
            test(setup);
        }
    });
}

/// Waits until the guest takes frames.
fn meet(peer: &mut Peer, machine: &mut Machine) {
    while peer.next() != Some(Frame::Hello) {
        assert!(!machine.has_ended(), "the machine ended without a word");
    }
    peer.bind(INTERFACE);
}

/// Takes frames until the machine has ended.
fn take_all(peer: &mut Peer, machine: &mut Machine) -> Tally {
    let mut tally = Tally::default();
    loop {
        let ended = machine.has_ended();
        while let Some(frame) = peer.next() {
            tally.note(frame);
        }
        if ended {
            return tally;
        }
    }
}

/// Sends frames that come back, so many at a time, until the machine has ended. `progress` is told
/// how many came back.
fn exchange(
    peer: &mut Peer,
    machine: &mut Machine,
    mut progress: impl FnMut(&Machine, u64),
) -> Tally {
    let mut tally = Tally::default();
    let (mut next, mut out) = (0, 0);
    loop {
        while out < WINDOW && peer.send(&frame::make(0, next, 60 + next as usize % 1455)) {
            next += 1;
            out += 1;
        }
        match peer.next() {
            Some(frame) => {
                tally.note(frame);
                out -= u64::from(out > 0);
                progress(machine, tally.frames);
            }
            None if machine.has_ended() => {
                while let Some(frame) = peer.next() {
                    tally.note(frame);
                }
                return tally;
            }
            // Those on their way were lost.
            None => out = 0,
        }
    }
}

fn only_load(report: &machine::Report) -> &Load {
    let [load] = &report.networks[..] else { panic!("{report:?}") };
    load
}

fn nothing_is_damaged(tally: &Tally, load: &Load) {
    assert_eq!((tally.damaged, load.checksum_errors), (0, 0), "{load:?}");
}

#[test]
fn the_guest_finds_what_it_needs() {
    everywhere(|setup| {
        Machine::start(setup, "", "check=virtio,net").finish();
    });
}

#[test]
fn frames_of_the_guest_arrive_once_each() {
    everywhere(|setup| {
        let mut peer = Peer::new();
        let words =
            format!("check=pci net=send frames={FRAMES} queues={} seconds=60", setup.queues);
        let mut machine = Machine::start(setup, "", &words);
        let tally = take_all(&mut peer, &mut machine);
        let report = machine.finish();
        assert_eq!(only_load(&report).sent, FRAMES);
        assert_eq!((tally.frames, tally.duplicates, tally.lost()), (FRAMES, 0, 0));
        nothing_is_damaged(&tally, only_load(&report));
    });
}

#[test]
fn frames_to_the_guest_come_back_once_each() {
    everywhere(|setup| {
        let mut peer = Peer::new();
        let words =
            format!("check=pci net=echo frames={FRAMES} queues={} seconds=60", setup.queues);
        let mut machine = Machine::start(setup, "", &words);
        meet(&mut peer, &mut machine);
        let tally = exchange(&mut peer, &mut machine, |_, _| {});
        let report = machine.finish();
        let load = only_load(&report);
        assert!(load.received >= FRAMES, "{load:?}");
        assert_eq!((load.lost, load.duplicates), (0, 0), "{load:?}");
        assert_eq!((tally.frames, tally.duplicates, tally.lost()), (load.sent, 0, 0));
        nothing_is_damaged(&tally, load);
    });
}

#[test]
fn large_frames_take_several_buffers_and_single_ones_hold_them_whole() {
    // As many as there are buffers for, so that none is lost.
    const LARGE: u64 = 70;
    everywhere(|setup| {
        for words in ["buffer=700", "mergeable=off"] {
            let mut peer = Peer::new();
            let words =
                format!("check=pci net=receive bytes=9014 {words} frames={LARGE} seconds=60");
            let mut machine = Machine::start(setup, ",mtu=9000", &words);
            meet(&mut peer, &mut machine);
            for number in 0..LARGE {
                assert!(peer.send(&frame::make(0, number, 9014 - number as usize)));
            }
            let tally = take_all(&mut peer, &mut machine);
            let report = machine.finish();
            assert_eq!((only_load(&report).received, only_load(&report).lost), (LARGE, 0));
            nothing_is_damaged(&tally, only_load(&report));
        }
    });
}

#[test]
fn killed_under_load_it_may_lose_and_double_frames_that_come_and_loses_none_that_go() {
    isolated(|| {
        for setup in setups().into_iter().filter(|setup| setup.placement.is_empty()) {
            println!("{setup:?}");
            let mut peer = Peer::new();
            let frames = (KILLS + 2) * FRAMES_OF_A_LIFE;
            let words =
                format!("check=pci net=echo frames={frames} queues={} seconds=120", setup.queues);
            let mut machine = Machine::start(setup, "", &words);
            meet(&mut peer, &mut machine);
            let mut kills = 0;
            let tally = exchange(&mut peer, &mut machine, |machine, echoed| {
                if kills < KILLS && echoed >= (kills + 1) * FRAMES_OF_A_LIFE {
                    machine.kill_network();
                    kills += 1;
                }
            });
            assert_eq!(kills, KILLS);
            let report = machine.finish();
            let load = only_load(&report);
            println!("{load:?}, {} lost, {} doubled", tally.lost(), tally.duplicates);
            // Each frame that reached the guest comes back.
            assert_eq!(tally.frames, load.received - load.duplicates, "{load:?}");
            nothing_is_damaged(&tally, load);
        }
    });
}

/// The guest ends when it got frames, too: these come when its own have.
#[test]
fn frames_of_the_guest_survive_kills() {
    isolated(|| {
        for setup in setups().into_iter().filter(|setup| setup.placement.is_empty()) {
            println!("{setup:?}");
            let mut peer = Peer::new();
            let frames = (KILLS + 2) * FRAMES_OF_A_LIFE;
            let words =
                format!("check=pci net=both frames={frames} queues={} seconds=120", setup.queues);
            let mut machine = Machine::start(setup, "", &words);
            let (mut tally, mut kills) = (Tally::default(), 0);
            while tally.frames < frames && !machine.has_ended() {
                while let Some(frame) = peer.next() {
                    tally.note(frame);
                    if kills < KILLS && tally.frames >= (kills + 1) * FRAMES_OF_A_LIFE {
                        machine.kill_network();
                        kills += 1;
                    }
                }
            }
            // Not before: a socket hears nothing while it is bound.
            if tally.frames == frames {
                peer.bind(INTERFACE);
            }
            for number in (0..frames).cycle() {
                if machine.has_ended() {
                    break;
                }
                peer.send(&frame::make(0, number, 60));
            }
            while let Some(frame) = peer.next() {
                tally.note(frame);
            }
            let report = machine.finish();
            assert_eq!((kills, only_load(&report).sent), (KILLS, frames));
            // What a predecessor took is sent by its successor, some of it for the second time.
            assert_eq!((tally.frames, tally.lost()), (frames, 0), "{tally:?}");
            nothing_is_damaged(&tally, only_load(&report));
        }
    });
}

#[test]
fn a_driver_that_resets_under_load_gets_on() {
    const RESETS: u64 = 10;
    everywhere(|setup| {
        let mut peer = Peer::new();
        let words = format!("check=pci net=echo frames={FRAMES} resets={RESETS} seconds=600");
        let words = format!("{words} queues={}", setup.queues);
        let mut machine = Machine::start(setup, "", &words);
        meet(&mut peer, &mut machine);
        let tally = exchange(&mut peer, &mut machine, |_, _| {});
        let report = machine.finish();
        assert_eq!(only_load(&report).resets, RESETS);
        assert!(tally.frames > RESETS);
        nothing_is_damaged(&tally, only_load(&report));
    });
}
