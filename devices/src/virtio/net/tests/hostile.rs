//! Drivers that send nonsense: each buffer comes back or the device asks for a reset.

use executor::Either;

use super::bed::*;
use crate::virtio::backend::BackendEvent;
use crate::virtio::queue::driver::Buffer;

/// A small generator of numbers; a seed makes a failure repeatable.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    /// A buffer that is often, but not always, one that a driver could have.
    fn buffer(&mut self) -> Buffer {
        let address = match self.next(16) {
            0 => self.next(u64::MAX),
            1 => (64 << 20) - self.next(2000),
            _ => place_at(self.next(8)) + self.next(64),
        };
        let length = match self.next(12) {
            0 => self.next(1 << 32) as u32,
            1 => 0,
            2 => self.next(13) as u32,
            _ => 12 + 300 * self.next(20) as u32,
        };
        if self.next(2) == 0 { readable(address, length) } else { writable(address, length) }
    }
}

async fn nonsense(features: u64) {
    let mut bed = Bed::active(options(64), 1, features).await;
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let (mut answers, mut resets) = (0, 0);
    for round in 0..1500 {
        let queue = numbers.next(3) as usize;
        for word in 0..16 {
            let number = numbers.next(1 << 20);
            bed.write(place_at(numbers.next(8)) + 4 * word, &number.to_le_bytes());
        }
        let count = 1 + numbers.next(4);
        let mut buffers: Vec<Buffer> = (0..count).map(|_| numbers.buffer()).collect();
        if numbers.next(3) > 0 {
            // Of one kind only, as this queue has them.
            buffers = vec![match (queue, buffers[0]) {
                (RECEIVE, Buffer::Readable { address, length }) => writable(address, length),
                (TRANSMIT, Buffer::Writable { address, length }) => readable(address, length),
                (_, buffer) => buffer,
            }];
        }
        let added = match numbers.next(3) {
            0 => bed.driver(queue).add_indirect(place_at(20), &buffers),
            _ => bed.driver(queue).add(&buffers),
        };
        if added.is_none() {
            bed.reset().await;
            bed.new_rings();
            bed.activate().await.unwrap();
            continue;
        }
        bed.publish(queue);
        if queue == RECEIVE {
            let flags = rustix::net::SendFlags::DONTWAIT;
            let sent = plain(OWN, numbers.next(2000) as usize, round);
            let _ = rustix::net::send(&bed.peers[0], &sent, flags);
            for _ in 0..4 {
                executor::yield_now().await;
            }
        }
        let mut flags = [0; 128];
        let receive = rustix::net::RecvFlags::DONTWAIT;
        while rustix::net::recv(&bed.peers[0], &mut flags[..], receive).is_ok() {}
        let event = match queue {
            // No frame needs to come.
            RECEIVE => bed.events.try_recv().ok(),
            _ => match bed.wait_or_event(queue).await {
                Either::Left(()) => None,
                Either::Right(event) => Some(event),
            },
        };
        while bed.driver(queue).take_used().is_some() {
            answers += 1;
        }
        match event {
            Some(BackendEvent::NeedsReset { .. }) => {
                resets += 1;
                bed.reset().await;
                while bed.events.try_recv().is_ok() {}
                bed.new_rings();
                bed.activate().await.unwrap();
            }
            Some(BackendEvent::ConfigChanged { .. } | BackendEvent::LookAtConfig) | None => {}
        }
    }
    assert!(answers > 100 && resets > 100, "{answers} answers, {resets} resets");
    // The device is as good as new.
    bed.reset().await;
    bed.new_rings();
    bed.activate().await.unwrap();
    let good = plain(PEER, 77, 5);
    bed.add_frame(TRANSMIT, 0, &good);
    bed.publish(TRANSMIT);
    assert_eq!(bed.sent(0).await, good);
    bed.finish().await;
}

#[test]
fn nonsense_is_answered_or_ends_in_a_reset() {
    on_both(|| nonsense(OPTIONAL));
    on_both(|| nonsense(OPTIONAL | MERGEABLE));
}

#[test]
fn receive_buffers_that_hold_no_header_break_the_queue() {
    on_both(|| async {
        for (buffers, said) in [
            (vec![writable(place_at(0), 11)], "less than a header"),
            (vec![readable(place_at(0), 2000)], "less than a header"),
            ((0..60).map(|place| writable(place_at(place), 1)).collect(), ""),
        ] {
            let mut bed = Bed::active(options(64), 1, OPTIONAL).await;
            bed.driver(RECEIVE).add(&buffers).unwrap();
            bed.publish(RECEIVE);
            if said.is_empty() {
                // Too little for a frame, but no nonsense: it waits for more.
                let given = bed.give(RECEIVE, 1, 2048);
                bed.inject(0, &plain(OWN, 1000, 1)).await;
                let used = bed.used(RECEIVE).await;
                assert_eq!(used.written, 60);
                let used = bed.used(RECEIVE).await;
                assert_eq!((used.head, used.written), (given[0].0, 12 + 14 + 1000 - 60));
            } else {
                let BackendEvent::NeedsReset { queue, reason } = bed.events.recv().await.unwrap()
                else {
                    panic!("another event");
                };
                assert_eq!(queue, 0);
                assert!(reason.contains(said), "{reason}");
            }
            bed.finish().await;
        }
    });
}

#[test]
fn buffers_in_too_many_pieces_or_of_gigabytes_do_not_overflow() {
    on_both(|| async {
        let mut bed = Bed::active(options(1024), 1, OPTIONAL).await;
        // 1000 pieces of 13 bytes each are an ordinary frame's worth, but not a large one's.
        let pieces: Vec<Buffer> = (0..1000).map(|at| writable(place_at(0) + 13 * at, 13)).collect();
        for table in 0..3 {
            bed.driver(RECEIVE).add_indirect(place_at(20 + table), &pieces).unwrap();
        }
        // Each of these has nearly 4 GiB.
        let large: Vec<Buffer> = (0..63).map(|_| writable(0x40_0000, 60 << 20)).collect();
        for table in 0..4 {
            bed.driver(RECEIVE).add_indirect(place_at(30 + table), &large).unwrap();
        }
        bed.publish(RECEIVE);
        for number in 0..3 {
            bed.inject(0, &plain(OWN, 500, number)).await;
        }
        for _ in 0..3 {
            let used = bed.used(RECEIVE).await;
            assert_eq!(used.written, 526);
        }
        bed.finish().await;
    });
}
