//! Activation, reset, pause, configuration, and drivers that break the ring.

use super::super::{BlockBackend, BlockImage};
use super::bed::*;
use crate::virtio::backend::{BackendEvent, BackendRequest, RingLayout, RingPosition};

#[test]
fn setups_that_make_no_sense_are_refused_and_a_good_one_still_works() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let image = BlockImage::open(&disk.options()).unwrap();
        let mut bed = Bed::start(BlockBackend::new(image), 1, 16);
        for break_it in [
            (|setup| setup.size = 0) as fn(&mut crate::virtio::backend::QueueSetup),
            |setup| setup.descriptor_table = 1 << 40,
            |setup| setup.available_ring += 1,
            |setup| setup.used_ring = u64::MAX,
            |setup| {
                setup.layout = match setup.layout {
                    RingLayout::Split => RingLayout::Packed,
                    RingLayout::Packed => RingLayout::Split,
                };
            },
        ] {
            let mut setups = bed.setups(&[]);
            break_it(&mut setups[0]);
            let reason = bed.activate_with(FEATURES, setups).await.unwrap_err();
            assert!(reason.contains("queue 0"), "{reason}");
        }
        bed.activate().await;
        let again = bed.activate_with(FEATURES, bed.setups(&[])).await;
        assert!(again.is_err(), "it is active already");
        let data = Bed::data(0);
        assert_eq!(bed.request(IN, 1, &[writable(data, 512)]).await, (STATUS_OK, 513));
        bed.finish().await;
    });
}

#[test]
fn a_broken_ring_asks_for_a_reset_and_works_after_it() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let mut bed = running(&disk.options()).await;
        let data = Bed::data(0);
        bed.request(IN, 1, &[writable(data, 512)]).await;
        // A request without a byte for its status.
        bed.driver(0).add(&[readable(data, 16)]).unwrap();
        bed.publish(0);
        let BackendEvent::NeedsReset { queue, reason } = bed.events.recv().await.unwrap() else {
            panic!("another event");
        };
        assert_eq!(queue, 0);
        assert!(reason.contains("status"), "{reason}");
        bed.reset().await;
        bed.reset().await;
        bed.new_rings();
        bed.activate().await;
        assert_eq!(bed.request(IN, 2, &[writable(data, 512)]).await, (STATUS_OK, 513));
        let layout = bed.driver(0).layout();
        let expected = match layout.format {
            RingLayout::Split => {
                // An available index that jumps.
                bed.write(layout.available_ring + 2, &0x4000u16.to_le_bytes());
                "available index"
            }
            RingLayout::Packed => {
                // A buffer that does not exist, after the three descriptors of the first.
                bed.write(layout.descriptor_table + 3 * 16 + 12, &[0xff, 0xff, 0x80, 0]);
                "id 65535"
            }
        };
        bed.kick(0);
        let BackendEvent::NeedsReset { reason, .. } = bed.events.recv().await.unwrap() else {
            panic!("another event");
        };
        assert!(reason.contains(expected), "{reason}");
        bed.reset().await;
        bed.finish().await;
    });
}

#[test]
fn nothing_touches_memory_after_a_reset_under_load() {
    on_both(|| async {
        let disk = Disk::new(4 << 20);
        let mut options = disk.options();
        options.queue_size = 128;
        let mut bed = running(&options).await;
        for round in 0..10u64 {
            for place in 0..32 {
                let data = [writable(Bed::data(place), 65536)];
                let frame = bed.frame(place, IN, place * 128, &data);
                bed.driver(0).add(&frame).unwrap();
            }
            bed.publish(0);
            // At different points of the work.
            for _ in 0..round {
                executor::yield_now().await;
            }
            bed.reset().await;
            for place in 0..32 {
                bed.write(Bed::data(place), &vec![0xcc; 65536]);
            }
            bed.new_rings();
            bed.activate().await;
            // Something else through the same disk, so that whatever was left over would be done.
            let data = Bed::data(40);
            let frame = bed.frame(40, IN, 9, &[writable(data, 512)]);
            bed.send(&frame).await;
            assert_eq!(bed.read(data, 512), pattern(9));
            for place in 0..32 {
                assert_eq!(bed.read(Bed::data(place), 65536), vec![0xcc; 65536]);
            }
        }
        bed.finish().await;
    });
}

#[test]
fn a_paused_device_has_nothing_in_flight_and_goes_on_where_it_stood() {
    on_both(|| async {
        let disk = Disk::new(4 << 20);
        let mut bed = running(&disk.options()).await;
        let mut finished = 0;
        for round in 0..10u64 {
            for place in 0..8 {
                let data = [writable(Bed::data(place), 4096)];
                let frame = bed.frame(place, IN, place * 8, &data);
                bed.driver(0).add(&frame).unwrap();
            }
            bed.publish(0);
            for _ in 0..round {
                executor::yield_now().await;
            }
            let states = bed.pause().await;
            let (RingPosition::Split { next_available, next_used }
            | RingPosition::Packed { next_available, next_used }) = states[0].position;
            assert_eq!(next_available, next_used);
            assert_eq!(bed.pause().await, states, "paused already");
            if round % 2 == 0 {
                bed.resume().await;
                bed.resume().await;
            } else {
                // Another back end goes on from the state.
                let image = BlockImage::open(&disk.options());
                assert!(image.is_err(), "the first one holds the lock");
                bed.kill().await;
                let image = BlockImage::open(&disk.options()).unwrap();
                bed.replace(BlockBackend::new(image));
                let setups = bed.setups(&states);
                bed.activate_with(FEATURES, setups).await.unwrap();
            }
            let mut taken = 0;
            while taken < 8 {
                bed.wait(0).await;
                taken += std::iter::from_fn(|| bed.driver(0).take_used()).count();
            }
            finished += taken;
            for place in 0..8 {
                assert_eq!(bed.status(place), STATUS_OK);
                assert_eq!(bed.read(Bed::data(place), 512), pattern(place * 8));
            }
        }
        assert_eq!(finished, 80);
        bed.reset().await;
        assert!(bed.pause().await.is_empty());
        bed.resume().await;
        bed.finish().await;
    });
}

#[test]
fn the_driver_chooses_between_write_back_and_write_through() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let mut bed = running(&disk.options()).await;
        let data = Bed::data(0);
        let writeback = async |bed: &Bed| {
            let read = |reply| BackendRequest::ReadConfig { offset: 32, length: 1, reply };
            bed.requests.call(read, deadline()).await.unwrap()
        };
        for value in [0u8, 1, 0] {
            let write =
                |reply| BackendRequest::WriteConfig { offset: 32, data: vec![value], reply };
            bed.requests.call(write, deadline()).await.unwrap();
            assert_eq!(writeback(&bed).await, [value]);
            bed.write(data, &[value + 1; 512]);
            assert_eq!(bed.request(OUT, 5, &[readable(data, 512)]).await, (STATUS_OK, 1));
            assert_eq!(disk.read(5, 512), [value + 1; 512]);
        }
        // Writes elsewhere, of any length, change nothing.
        for (offset, data) in [(0, vec![1; 8]), (32, vec![]), (u32::MAX, vec![1])] {
            let write = |reply| BackendRequest::WriteConfig { offset, data, reply };
            bed.requests.call(write, deadline()).await.unwrap();
        }
        assert_eq!(writeback(&bed).await, [0]);
        let read = |reply| BackendRequest::ReadConfig { offset: 60, length: u32::MAX, reply };
        let tail = bed.requests.call(read, deadline()).await.unwrap();
        assert_eq!(tail, [0; 4]);
        bed.reset().await;
        assert_eq!(writeback(&bed).await, [1]);
        // A driver without flushes gets write-through.
        bed.new_rings();
        let features = FEATURES & !(1 << 9 | 1 << 11);
        let setups = bed.setups(&[]);
        bed.activate_with(features, setups).await.unwrap();
        let before = executor::stats().unwrap().submitted;
        bed.request(OUT, 5, &[readable(data, 512)]).await;
        let through = executor::stats().unwrap().submitted - before;
        let before = executor::stats().unwrap().submitted;
        bed.request(IN, 5, &[writable(data, 512)]).await;
        let read = executor::stats().unwrap().submitted - before;
        assert_eq!(through, read + 1, "a write is followed by a sync");
        bed.finish().await;
    });
}
