//! Drivers that break the rules.

use std::cell::Cell;
use std::rc::Rc;

use executor::DriverChoice;
use proptest::prelude::*;

use super::bed::*;
use crate::virtio::backend::BackendEvent;

const ALL: u64 = (MEMORY - SPARE) / PAGE;

#[test]
fn pages_that_are_not_memory_are_ignored() {
    on_both(|| async {
        let mut bed = Bed::active(parts()).await;
        let end = (MEMORY / PAGE) as u32;
        let list = bed.list(&[end, end + 1, u32::MAX, u32::MAX - 1, spare(3), 0x8000_0000]);
        bed.exchange(INFLATE, &[list]).await;
        // A range that begins inside ends with the memory.
        let list = bed.list(&(end - 2..end + 50).collect::<Vec<_>>());
        bed.exchange(INFLATE, &[list]).await;
        assert_eq!(bed.spare_pages(), ALL - 3);
        bed.finish().await;
    });
}

#[test]
fn a_list_without_end_is_cut() {
    on_both(|| async {
        let mut bed = Bed::active(parts()).await;
        bed.list(&[spare(0); 64]);
        // 128 MiB of numbers, the same ones again and again.
        let pieces: Vec<_> = (0..16).map(|_| readable(SPARE, 8 << 20)).collect();
        bed.exchange(INFLATE, &pieces).await;
        bed.exchange(DEFLATE, &pieces).await;
        bed.finish().await;
    });
}

#[test]
fn buffers_of_the_wrong_direction_do_no_harm() {
    on_both(|| async {
        let mut bed = Bed::active(parts()).await;
        bed.exchange(INFLATE, &[writable(SPARE, 4096)]).await;
        bed.exchange(DEFLATE, &[writable(SPARE, 1)]).await;
        bed.exchange(REPORTING, &[readable(SPARE, 2 << 20)]).await;
        assert_eq!(bed.spare_pages(), ALL);
        bed.finish().await;
    });
}

#[test]
fn a_buffer_outside_memory_breaks_the_queue_until_a_reset() {
    on_both(|| async {
        for queue in [INFLATE, DEFLATE, STATISTICS, REPORTING] {
            let mut bed = Bed::active(parts()).await;
            bed.driver(queue).add(&[readable(MEMORY - 4, 8)]).unwrap();
            bed.publish(queue);
            let BackendEvent::NeedsReset { queue: broken, .. } = bed.events.recv().await.unwrap()
            else {
                panic!("another event");
            };
            assert_eq!(usize::from(broken), queue);
            bed.reset().await;
            bed.new_rings();
            bed.activate(&[0, 1, 2, 3]).await.unwrap();
            let list = bed.list(&[spare(0)]);
            bed.exchange(INFLATE, &[list]).await;
            bed.finish().await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_given_back(
        buffers in prop::collection::vec(
            (0_usize..2, prop::collection::vec(any::<u8>(), 1..80), any::<u32>()),
            1..40,
        ),
    ) {
        let buffers = Rc::new(buffers);
        let given = Rc::new(Cell::new(0));
        on(DriverChoice::Epoll, || {
            let (buffers, given) = (buffers.clone(), given.clone());
            async move {
                let mut bed = Bed::active(parts()).await;
                for (queue, bytes, range) in buffers.iter() {
                    // Not the rings.
                    let mut bytes = bytes.clone();
                    for number in bytes.as_chunks_mut::<4>().0 {
                        if number[2] == 0 && number[3] == 0 {
                            number[2] = 1;
                        }
                    }
                    bed.write(SENT, &bytes);
                    bed.exchange(*queue, &[readable(SENT, bytes.len() as u32)]).await;
                    let start = u64::from(*range) % (MEMORY - SPARE - 1);
                    let length = (u64::from(*range >> 8)).min(MEMORY - SPARE - start).max(1);
                    bed.exchange(REPORTING, &[writable(SPARE + start, length as u32)]).await;
                    let said = bed.driver(STATISTICS).add(&[readable(SENT, bytes.len() as u32)]);
                    bed.publish(STATISTICS);
                    given.set(given.get() + usize::from(said.is_some()));
                    while bed.driver(STATISTICS).take_used().is_some() {}
                }
                bed.finish().await;
            }
        });
        prop_assert_eq!(given.get(), 2 * buffers.len());
    }
}
