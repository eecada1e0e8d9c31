//! Reads, writes, flushes and identity, in every layout.

use super::super::{Access, BlockBackend, BlockImage, BlockSize, Caching, IoStrategy};
use super::bed::*;
use crate::virtio::parts::Parts;
use crate::virtio::queue::driver;

#[test]
fn what_is_written_is_in_the_file_and_reads_back() {
    on_both(|| async {
        let disk = Disk::new(1 << 20);
        let mut bed = running(&disk.options()).await;
        let data = Bed::data(0);
        assert_eq!(bed.request(IN, 7, &[writable(data, 1024)]).await, (STATUS_OK, 1025));
        assert_eq!(bed.read(data, 1024), [pattern(7), pattern(8)].concat(), "two sectors");
        bed.write(data, &[0xa5; 4096]);
        assert_eq!(bed.request(OUT, 100, &[readable(data, 4096)]).await, (STATUS_OK, 1));
        assert_eq!(bed.request(FLUSH, 0, &[]).await, (STATUS_OK, 1));
        assert_eq!(disk.read(100, 4096), [0xa5; 4096]);
        assert_eq!(disk.read(99, 512), pattern(99));
        assert_eq!(disk.read(108, 512), pattern(108));
        bed.finish().await;
    });
}

#[test]
fn both_strategies_and_caches_serve_every_layout() {
    on_both(|| async {
        for caching in [Caching::PageCache, Caching::Direct] {
            for strategy in [IoStrategy::Ring, IoStrategy::Adaptive, IoStrategy::InMemory] {
                let disk = Disk::new(1 << 20);
                let mut options = disk.options();
                options.caching = caching;
                let image = BlockImage::open(&options).unwrap();
                let again = image.try_clone().unwrap();
                let mapped = BlockBackend::new(image).with_strategy(strategy);
                let called = BlockBackend::new(again).with_strategy(strategy).without_mapping();
                for backend in [mapped, called] {
                    let mut bed = Bed::start(backend, 1, options.queue_size);
                    bed.activate().await;
                    every_layout(&disk, &mut bed).await;
                    bed.finish().await;
                }
            }
        }
    });
}

async fn every_layout(disk: &Disk, bed: &mut Bed) {
    let data = Bed::data(0);
    // Several descriptors, aligned and not, short and long.
    let pieces = [512u32, 1024, 512, 3584, 100, 412, 1, 511, 65536];
    let total: u32 = pieces.iter().sum();
    let mut at = data;
    let mut buffers = Vec::new();
    let content: Vec<u8> = (0..total).map(|byte| (byte % 251) as u8).collect();
    let mut done = 0;
    for piece in pieces {
        bed.write(at, &content[done..done + piece as usize]);
        buffers.push((at, piece));
        done += piece as usize;
        at += u64::from(piece) + if piece % 512 == 0 { 512 } else { 3 };
    }
    let out: Vec<_> = buffers.iter().map(|(at, n)| readable(*at, *n)).collect();
    assert_eq!(bed.request(OUT, 16, &out).await, (STATUS_OK, 1));
    assert_eq!(disk.read(16, total as usize), content);
    for (at, piece) in &buffers {
        bed.write(*at, &vec![0; *piece as usize]);
    }
    let back: Vec<_> = buffers.iter().map(|(at, n)| writable(*at, *n)).collect();
    assert_eq!(bed.request(IN, 16, &back).await, (STATUS_OK, total + 1));
    let mut read = Vec::new();
    for (at, piece) in &buffers {
        read.extend(bed.read(*at, *piece as usize));
    }
    assert_eq!(read, content);

    // Header in three descriptors, the last with the first data; status behind the last data.
    let frame = bed.frame(0, OUT, 3, &[]);
    let driver::Buffer::Readable { address: header, .. } = frame[0] else {
        panic!("a frame begins with its header");
    };
    let together = data + 0x8000;
    bed.write(together, &bed.read(header + 9, 7));
    bed.write(together + 7, &[0x77; 512]);
    let written = bed
        .send(&[
            readable(header, 1),
            readable(header + 1, 8),
            readable(together, 7 + 512),
            frame[1],
        ])
        .await;
    assert_eq!((bed.status(0), written), (STATUS_OK, 1));
    assert_eq!(disk.read(3, 512), [0x77; 512]);
    let frame = bed.frame(0, IN, 3, &[]);
    bed.write(data, &[0xee; 514]);
    let written = bed.send(&[frame[0], writable(data, 513)]).await;
    assert_eq!(written, 513);
    assert_eq!(bed.read(data, 512), [0x77; 512]);
    assert_eq!(bed.read(data + 512, 2), [STATUS_OK, 0xee]);

    // The same through an indirect table.
    let frame = bed.frame(0, IN, 5, &[writable(data, 256), writable(data + 0x1003, 256)]);
    let head = bed.driver(0).add_indirect(Bed::table(0), &frame).unwrap();
    bed.publish(0);
    bed.wait(0).await;
    assert_eq!(bed.driver(0).take_used().unwrap().head, head);
    assert_eq!(bed.status(0), STATUS_OK);
    assert_eq!(bed.read(data, 256), pattern(5)[..256]);
    assert_eq!(bed.read(data + 0x1003, 256), pattern(5)[256..]);
}

#[test]
fn requests_beyond_the_end_or_of_parts_of_blocks_fail() {
    on_both(|| async {
        let disk = Disk::new(64 << 10);
        let mut bed = running(&disk.options()).await;
        let data = Bed::data(0);
        for (sector, bytes) in [
            (128, 512),
            (127, 1024),
            (0, 65536 + 512),
            (u64::MAX, 512),
            (u64::MAX / 512, 512),
            (u64::MAX / 512 + 1, 512),
            (0, 511),
            (0, 513),
        ] {
            let read = bed.request(IN, sector, &[writable(data, bytes)]).await;
            assert_eq!(read, (STATUS_IOERR, 1), "{sector} {bytes}");
            let write = bed.request(OUT, sector, &[readable(data, bytes)]).await;
            assert_eq!(write, (STATUS_IOERR, 1), "{sector} {bytes}");
        }
        assert_eq!(bed.request(IN, 127, &[writable(data, 512)]).await, (STATUS_OK, 513));
        assert_eq!(bed.request(IN, 0, &[]).await, (STATUS_OK, 1));
        assert_eq!(disk.read(0, 512), pattern(0));
        bed.finish().await;
    });
}

#[test]
fn large_blocks_are_the_smallest_unit() {
    on_both(|| async {
        let disk = Disk::new(64 << 10);
        let mut options = disk.options();
        options.block_size = BlockSize::Bytes4096;
        let mut bed = running(&options).await;
        let data = Bed::data(0);
        for (sector, bytes, status) in [
            (8, 4096, STATUS_OK),
            (1, 4096, STATUS_IOERR),
            (8, 512, STATUS_IOERR),
            (120, 4096, STATUS_OK),
            (128, 4096, STATUS_IOERR),
        ] {
            let answer = bed.request(IN, sector, &[writable(data, bytes)]).await;
            assert_eq!(answer.0, status, "{sector} {bytes}");
        }
        bed.finish().await;
    });
}

#[test]
fn a_read_only_disk_is_not_written() {
    on_both(|| async {
        let disk = Disk::new(64 << 10);
        let mut options = disk.options();
        options.access = Access::ReadOnly;
        let mut bed = running(&options).await;
        let data = Bed::data(0);
        bed.write(data, &[1; 512]);
        for kind in [OUT, DISCARD, WRITE_ZEROES] {
            let answer = bed.request(kind, 0, &[readable(data, 512)]).await;
            assert_eq!(answer, (STATUS_IOERR, 1), "{kind}");
        }
        assert_eq!(bed.request(IN, 1, &[writable(data, 512)]).await, (STATUS_OK, 513));
        assert_eq!(bed.request(FLUSH, 0, &[]).await, (STATUS_OK, 1));
        assert_eq!(disk.read(0, 512), pattern(0));
        bed.finish().await;
    });
}

#[test]
fn identity_and_requests_that_nobody_knows() {
    on_both(|| async {
        let disk = Disk::new(64 << 10);
        let mut options = disk.options();
        options.id = Some("a serial number of more than twenty".into());
        let mut bed = running(&options).await;
        let data = Bed::data(0);
        assert_eq!(bed.request(GET_ID, 0, &[writable(data, 20)]).await, (STATUS_OK, 21));
        assert_eq!(bed.read(data, 20), b"a serial number of m");
        assert_eq!(bed.request(GET_ID, 0, &[writable(data, 19)]).await, (STATUS_IOERR, 1));
        for kind in [2, 3, 5, 12, 14, 0x100, u32::MAX] {
            let answer = bed.request(kind, 0, &[writable(data, 512)]).await;
            assert_eq!(answer, (STATUS_UNSUPP, 1), "{kind}");
        }
        // A header that is too short still has a status to be answered in.
        let frame = bed.frame(0, IN, 0, &[]);
        let Some(driver::Buffer::Readable { address, .. }) = frame.first().copied() else {
            panic!("a frame begins with its header");
        };
        assert_eq!(bed.send(&[readable(address, 15), frame[1]]).await, 1);
        assert_eq!(bed.status(0), STATUS_IOERR);
        assert_eq!(bed.send(&[frame[1]]).await, 1);
        assert_eq!(bed.status(0), STATUS_IOERR);
        bed.finish().await;
    });
}

#[test]
fn a_file_that_was_cut_gives_errors_and_no_hang() {
    on_both(|| async {
        let disk = Disk::new(64 << 10);
        let mut bed = running(&disk.options()).await;
        let data = Bed::data(0);
        disk.file.set_len(32 << 10).unwrap();
        let answer = bed.request(IN, 60, &[writable(data, 4096)]).await;
        assert_eq!(answer.0, STATUS_IOERR);
        assert_eq!(bed.request(IN, 0, &[writable(data, 512)]).await, (STATUS_OK, 513));
        bed.finish().await;
    });
}

#[test]
fn many_queues_at_once_without_event_indices() {
    on_both(|| async {
        let disk = Disk::new(4 << 20);
        let mut options = disk.options();
        options.queues = 4;
        options.queue_size = 16;
        let image = BlockImage::open(&options).unwrap();
        let mut bed = Bed::start_with(BlockBackend::new(image), 4, 16, FEATURES & !(1 << 29));
        let setups = bed.setups(&[]);
        bed.activate_with(FEATURES & !(1 << 29), setups).await.unwrap();
        for round in 0..20u64 {
            for queue in 0..4 {
                for slot in 0..4 {
                    let place = queue * 4 + slot;
                    let sector = (round * 16 + place) * 8;
                    let data = [writable(Bed::data(place), 4096)];
                    let frame = bed.frame(place, IN, sector, &data);
                    bed.driver(queue as usize).add(&frame).unwrap();
                }
                bed.publish(queue as usize);
            }
            for queue in 0..4usize {
                let mut taken = 0;
                while taken < 4 {
                    bed.wait(queue).await;
                    while let Some(used) = bed.driver(queue).take_used() {
                        assert_eq!(used.written, 4097);
                        taken += 1;
                    }
                }
            }
            for place in 0..16 {
                let sector = (round * 16 + place) * 8;
                assert_eq!(bed.status(place), STATUS_OK);
                assert_eq!(bed.read(Bed::data(place), 512), pattern(sector));
            }
        }
        bed.finish().await;
    });
}
