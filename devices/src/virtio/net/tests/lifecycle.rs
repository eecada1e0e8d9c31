//! Activation, reset, pause, and back ends that die.

use super::super::{NetBackend, Offloads, SettingsFile, Tap};
use super::bed::*;
use crate::virtio::queue::InflightRegion;

#[test]
fn setups_that_make_no_sense_are_refused() {
    on_both(|| async {
        let mut bed = Bed::start(options(64), 2);
        bed.features &= !MULTIPLE;
        let (features, mut queues) = (bed.features, bed.setups(&[]));
        queues[2].index = 3;
        let activate =
            |reply| crate::virtio::backend::BackendRequest::Activate { features, queues, reply };
        let reason = bed.call(activate).await.unwrap_err();
        assert!(reason.contains("queue 3"), "{reason}");
        bed.activate().await.unwrap();
        bed.finish().await;
    });
}

#[test]
fn a_paused_device_keeps_receive_buffers_for_later() {
    on_both(|| async {
        for without in [0, MERGEABLE] {
            let mut bed = Bed::active(options(256), 1, OPTIONAL | without).await;
            let given = bed.give(RECEIVE, 256, 1600);
            for round in 0..15 {
                let before = plain(OWN, 100, round);
                bed.inject(0, &before).await;
                for _ in 0..round % 5 {
                    executor::yield_now().await;
                }
                bed.pause().await;
                let during = plain(OWN, 2 * round as usize, round);
                bed.inject(0, &during).await;
                for _ in 0..5 {
                    executor::yield_now().await;
                }
                bed.add_frame(TRANSMIT, 0, &during);
                bed.publish(TRANSMIT);
                bed.resume().await;
                bed.resume().await;
                for sent in [before, during.clone()] {
                    let received = bed.receive(RECEIVE, &given).await;
                    assert_eq!(received[12..], sent[12..], "round {round}");
                }
                assert_eq!(bed.sent(0).await, during);
                bed.used(TRANSMIT).await;
            }
            bed.finish().await;
        }
    });
}

#[test]
fn nothing_touches_memory_after_a_reset() {
    on_both(|| async {
        let mut bed = Bed::active(options(64), 1, OPTIONAL).await;
        for round in 0..10 {
            let given = bed.give(RECEIVE, 64, 2048);
            for number in 0..20 {
                bed.inject(0, &plain(OWN, 60, number)).await;
            }
            for _ in 0..round {
                executor::yield_now().await;
            }
            bed.reset().await;
            for (_, address) in &given {
                bed.write(*address, &[0xcc; 2048]);
            }
            bed.inject(0, &plain(OWN, 61, 1)).await;
            for _ in 0..5 {
                executor::yield_now().await;
            }
            for (_, address) in &given {
                assert_eq!(bed.read(*address, 2048), [0xcc; 2048]);
            }
            let mut bytes = [0; 4096];
            bed.new_rings();
            bed.activate().await.unwrap();
            let given = bed.give(RECEIVE, 64, 2048);
            loop {
                let received = bed.receive(RECEIVE, &given).await;
                bytes[..received.len()].copy_from_slice(&received);
                if received.len() == 12 + 14 + 61 {
                    break;
                }
            }
            bed.reset().await;
            bed.new_rings();
            bed.activate().await.unwrap();
        }
        bed.finish().await;
    });
}

#[test]
fn a_successor_goes_on_with_the_same_buffers_and_settings() {
    on_both(|| async {
        let pairs = 2;
        let (sockets, peers) = sockets(pairs);
        let tap = Tap::from_sockets(sockets, 1500, Offloads::all()).unwrap();
        let region = InflightRegion::create(2 * pairs as u16 + 1, 64).unwrap();
        let settings = SettingsFile::create().unwrap();
        let backend = || {
            let settings = settings.try_clone().unwrap();
            NetBackend::new(tap.try_clone().unwrap(), options(64))
                .unwrap()
                .with_inflight(region.clone())
                .with_settings(settings)
        };
        let mut bed = Bed::start_on(backend(), peers);
        bed.activate().await.unwrap();
        let control = 2 * pairs;
        // Own frames only, by another address, on both pairs.
        assert_eq!(bed.command(control, &[0, 0, 0]).await, 0);
        assert_eq!(bed.command(control, &[1, 1, 2, 0, 0, 0, 0, 9]).await, 0);
        assert_eq!(bed.command(control, &[4, 0, 2, 0]).await, 0);
        let own = super::super::MacAddress([2, 0, 0, 0, 0, 9]);
        let given = [bed.give(0, 60, 2048), bed.give(2, 60, 2048)];
        for death in 0..20u32 {
            for pair in 0..pairs {
                bed.inject(pair, &plain(own, 100, death)).await;
                bed.inject(pair, &plain(OWN, 100, death)).await;
            }
            bed.add_frame(TRANSMIT, 0, &plain(PEER, 50, death));
            bed.publish(TRANSMIT);
            for _ in 0..death % 7 {
                executor::yield_now().await;
            }
            bed.kill().await;
            bed.replace(backend());
            bed.activate().await.unwrap();
            assert_eq!(bed.config().await[..6], own.0);
            // A frame that a dying back end had read is lost, as on any network. One that comes now
            // is not.
            for (pair, given) in given.iter().enumerate() {
                let fresh = plain(own, 200, death);
                bed.inject(pair, &fresh).await;
                loop {
                    let received = bed.receive(2 * pair, given).await;
                    assert_eq!(received[12..18], own.0);
                    if received.len() == fresh.len() {
                        break;
                    }
                }
            }
            // Sent at least once.
            bed.used(TRANSMIT).await;
            assert_eq!(bed.sent(0).await, plain(PEER, 50, death));
            let mut more = [0; 4096];
            let flags = rustix::net::RecvFlags::DONTWAIT;
            while rustix::net::recv(&bed.peers[0], &mut more[..], flags).is_ok() {}
        }
        bed.reset().await;
        assert_eq!(bed.config().await[..6], OWN.0);
        bed.finish().await;
    });
}

#[test]
fn a_peer_that_is_gone_does_not_keep_the_device_busy() {
    on_both(|| async {
        let mut bed = Bed::active(options(64), 1, OPTIONAL).await;
        bed.give(RECEIVE, 64, 2048);
        bed.peers.clear();
        bed.add_frame(TRANSMIT, 0, &plain(PEER, 50, 1));
        bed.publish(TRANSMIT);
        bed.used(TRANSMIT).await;
        let before = executor::stats().unwrap().submitted;
        for _ in 0..1000 {
            executor::yield_now().await;
        }
        let operations = executor::stats().unwrap().submitted - before;
        assert!(operations < 100, "{operations} operations for nothing");
        bed.reset().await;
        bed.finish().await;
    });
}
