//! How often the kernel is visited for a frame. Counts, not times: the driver and the peer run
//! between the turns of the same executor.

use std::time::Duration;

use executor::DriverChoice;
use rustix::net::{RecvFlags, SendFlags};

use super::super::{NetBackend, Offloads, Tap};
use super::bed::*;
use crate::virtio::worker::Patience;

const FRAMES: u64 = 20_000;
const BURST: u32 = 32;

fn bed() -> Bed {
    // However slow this machine is, the driver is prompt.
    let hour = Duration::from_hours(1);
    let for_ever = Patience { spin: hour, gap: hour, nap: hour, prompt: hour };
    let (sockets, peers) = sockets(1);
    let tap = Tap::from_sockets(sockets, 1500, Offloads::all()).unwrap();
    let backend = NetBackend::new(tap, options(256)).unwrap().with_patience(for_ever);
    let mut bed = Bed::start_on(backend, peers);
    bed.features &= !OPTIONAL;
    bed
}

fn visits() -> u64 {
    executor::stats().unwrap().system_calls
}

#[test]
fn frames_from_the_driver_share_their_visits() {
    on(DriverChoice::Uring, || async {
        let mut bed = bed();
        bed.activate().await.unwrap();
        let mut bytes = [0; 4096];
        let (mut frames, mut kicks, mut before) = (0, 0, 0);
        while frames < FRAMES {
            if frames == 1024 {
                (before, kicks) = (visits(), 0);
            }
            for place in 0..u64::from(BURST) {
                bed.add_frame(TRANSMIT, place, &plain(PEER, 100, 1));
            }
            kicks += u64::from(bed.publish(TRANSMIT));
            bed.driver(TRANSMIT).disable_interrupts();
            let mut taken = 0;
            while taken < BURST {
                executor::yield_now().await;
                while rustix::net::recv(&bed.peers[0], &mut bytes[..], RecvFlags::DONTWAIT).is_ok()
                {
                    frames += 1;
                }
                while bed.driver(TRANSMIT).take_used().is_some() {
                    taken += 1;
                }
            }
        }
        let (visits, frames) = (visits() - before, frames - 1024);
        assert!(100 * visits <= 15 * frames, "{visits} for {frames}");
        assert!(20 * kicks <= frames, "{kicks} kicks for {frames}");
        bed.finish().await;
    });
}

#[test]
fn frames_to_the_driver_share_their_visits() {
    on(DriverChoice::Uring, || async {
        let mut bed = bed();
        bed.activate().await.unwrap();
        let mut given = bed.give(RECEIVE, 256, 4096);
        bed.driver(RECEIVE).disable_interrupts();
        let (mut frames, mut before) = (0, 0);
        while frames < FRAMES {
            if frames >= 1024 && before == 0 {
                before = visits();
                frames = 1024;
            }
            for number in 0..BURST {
                let sent = plain(OWN, 100, number);
                rustix::net::send(&bed.peers[0], &sent, SendFlags::DONTWAIT).unwrap();
            }
            let mut taken = 0;
            while taken < BURST {
                executor::yield_now().await;
                while let Some(used) = bed.driver(RECEIVE).take_used() {
                    let place = given.iter().position(|(head, _)| *head == used.head).unwrap();
                    let (_, address) = given.swap_remove(place);
                    let head = bed.driver(RECEIVE).add(&[writable(address, 4096)]).unwrap();
                    given.push((head, address));
                    taken += 1;
                }
                bed.publish(RECEIVE);
            }
            frames += u64::from(taken);
        }
        let (visits, frames) = (visits() - before, frames - 1024);
        assert!(100 * visits <= 15 * frames, "{visits} for {frames}");
        bed.finish().await;
    });
}
