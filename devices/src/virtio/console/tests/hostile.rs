use executor::Either;

use super::bed::*;
use crate::virtio::queue::driver::Buffer;

#[test]
fn buffers_of_the_wrong_kind_come_back_unused() {
    on_both(|| async {
        let mut bed = Bed::active(1).await;
        bed.driver(0).add(&[readable(place_at(0), 64)]).unwrap();
        bed.publish(0);
        bed.host_writes(0, b"x").await;
        assert_eq!(bed.used(0).await.written, 0);
        bed.driver(1).add(&[writable(place_at(0), 64)]).unwrap();
        bed.publish(1);
        assert_eq!(bed.used(1).await.written, 0);
        // What came for the guest is still there.
        bed.driver(0).add(&[writable(place_at(0), 64)]).unwrap();
        bed.publish(0);
        assert_eq!(bed.used(0).await.written, 1);
        bed.finish().await;
    });
}

#[test]
fn buffers_outside_memory_break_their_queue_until_a_reset() {
    let table: [(usize, Buffer); 3] = [
        (1, readable(u64::MAX - 63, 64)),
        (1, readable((32 << 20) - 1, 2)),
        (0, writable(1 << 40, 4096)),
    ];
    on_both(|| async {
        let mut bed = Bed::start(1);
        for (queue, buffer) in table {
            bed.new_rings();
            bed.activate().await;
            bed.driver(queue).add(&[buffer]).unwrap();
            bed.publish(queue);
            let said = bed.wait_or_event(queue).await;
            assert!(matches!(said, Either::Right(_)), "{buffer:?}");
            bed.reset().await;
        }
        bed.new_rings();
        bed.activate().await;
        bed.send(0, 0, b"again");
        assert_eq!(bed.host_reads(0, 5).await, b"again");
        bed.finish().await;
    });
}

/// All of memory in each of many descriptors: more than 4 GiB in all, and more pieces than one
/// operation takes.
#[test]
fn very_large_chains_are_no_trouble() {
    const ALL: u32 = 16 << 20;
    on_both(|| async {
        let mut bed = Bed::active(1).await;
        for _ in 0..4 {
            let pieces = vec![writable(16 << 20, ALL); 16];
            bed.driver(0).add(&pieces).unwrap();
        }
        bed.publish(0);
        for round in 0..4u8 {
            bed.host_writes(0, &[round; 10]).await;
            assert_eq!(bed.used(0).await.written, 10);
        }
        bed.finish().await;
    });
}
