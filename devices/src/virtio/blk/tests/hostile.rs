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

    /// A buffer that is often, but not always, one that a request could have.
    fn buffer(&mut self) -> Buffer {
        let address = match self.next(8) {
            0 => self.next(u64::MAX),
            1 => (16 << 20) - self.next(600),
            _ => Bed::data(self.next(4)) + self.next(64),
        };
        let length = match self.next(8) {
            0 => self.next(1 << 32) as u32,
            1 => 0,
            2 => 1,
            3 => 16,
            _ => 512 * self.next(20) as u32,
        };
        if self.next(2) == 0 { readable(address, length) } else { writable(address, length) }
    }
}

#[test]
fn data_outside_of_memory_is_an_error_of_the_request() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let mut bed = running(&disk.options()).await;
        let before = disk.read(0, 1 << 20);
        let (inside, outside) = (Bed::data(0), 1 << 40);
        for (kind, data) in [
            (IN, vec![writable(outside, 512)]),
            (IN, vec![writable(inside, 512), writable(outside, 512)]),
            (OUT, vec![readable(outside, 512), readable(inside, 512)]),
            (OUT, vec![readable((16 << 20) - 256, 512)]),
            (GET_ID, vec![writable(outside, 20)]),
            (DISCARD, vec![readable(outside, 16)]),
        ] {
            assert_eq!(bed.request(kind, 0, &data).await, (STATUS_IOERR, 1));
        }
        assert_eq!(disk.read(0, 1 << 20), before);
        // Without a place for a status there is no answer.
        let mut frame = bed.frame(0, IN, 0, &[writable(inside, 512)]);
        *frame.last_mut().unwrap() = writable(outside, 1);
        bed.driver(0).add(&frame).unwrap();
        bed.publish(0);
        let Either::Right(BackendEvent::NeedsReset { reason, .. }) = bed.wait_or_event(0).await
        else {
            panic!("an answer");
        };
        assert!(reason.contains("status"), "{reason}");
        bed.finish().await;
    });
}

#[test]
fn nonsense_is_answered_or_ends_in_a_reset() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let mut bed = running(&disk.options()).await;
        let mut numbers = Numbers(0x1234_5678_9abc_def1);
        let (mut answers, mut resets) = (0, 0);
        for _ in 0..1500 {
            let kind =
                [IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, 77][numbers.next(7) as usize];
            let sector = match numbers.next(4) {
                0 => numbers.next(u64::MAX),
                _ => numbers.next(2100),
            };
            let some = numbers.next(4);
            let data: Vec<Buffer> = (0..some).map(|_| numbers.buffer()).collect();
            let mut frame = bed.frame(0, kind, sector, &data);
            if numbers.next(4) == 0 {
                let at = numbers.next(frame.len() as u64) as usize;
                frame[at] = numbers.buffer();
            }
            for word in 0..8 {
                let number = numbers.next(4096);
                bed.write(Bed::data(1) + 8 * word, &number.to_le_bytes());
            }
            let added = if numbers.next(3) == 0 {
                bed.driver(0).add_indirect(Bed::table(0), &frame)
            } else {
                bed.driver(0).add(&frame)
            };
            assert!(added.is_some());
            bed.publish(0);
            match bed.wait_or_event(0).await {
                Either::Left(()) => {
                    while bed.driver(0).take_used().is_some() {
                        answers += 1;
                    }
                }
                Either::Right(BackendEvent::NeedsReset { .. }) => {
                    resets += 1;
                    bed.reset().await;
                    bed.new_rings();
                    bed.activate().await;
                }
                Either::Right(other) => panic!("{other:?}"),
            }
        }
        assert!(answers > 100 && resets > 100, "{answers} answers, {resets} resets");
        // The device is as good as new.
        let data = Bed::data(0);
        let answer = bed.request(GET_ID, 0, &[writable(data, 20)]).await;
        assert_eq!(answer, (STATUS_OK, 21));
        bed.finish().await;
    });
}
