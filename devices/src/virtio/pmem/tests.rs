//! Persistent memory against a model driver, under both drivers of the executor and over both ring
//! formats.

use std::fs::File;
use std::path::PathBuf;

use executor::sim::{Faults, PerMille, Sim};
use tempfile::TempDir;

use super::file::ALIGNMENT;
use super::{Access, PmemError, PmemFile, PmemParts};
use crate::memory::GuestAddress;
use crate::virtio::backend::BackendEvent;
use crate::virtio::parts::Parts;
use crate::virtio::queue::InflightRegion;
use crate::virtio::test_bed::{TestBed, in_world, on_both, readable, writable};

const START: u64 = 1 << 32;
/// Where requests and their answers are.
const REQUEST: u64 = 1 << 20;
const ANSWER: u64 = 2 << 20;

/// A file of so many bytes.
fn file(bytes: u64) -> (PathBuf, TempDir) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pmem");
    File::create_new(&path).unwrap().set_len(bytes).unwrap();
    (path, folder)
}

fn parts(access: Access) -> (PmemParts, TempDir) {
    let (path, folder) = file(ALIGNMENT);
    let file = PmemFile::open(&path, access, None).unwrap();
    (PmemParts::new(&file, GuestAddress(START), ALIGNMENT).unwrap(), folder)
}

async fn bed(parts: PmemParts) -> TestBed {
    let mut bed = TestBed::new(8 << 20, &parts.profile());
    bed.run(|context| parts.run(None, context));
    bed.activate_with(bed.features, bed.setups(&[])).await.unwrap();
    bed
}

/// One request, cut in two where asked: the answer.
async fn request(bed: &mut TestBed, kind: u32, cut: u32) -> u32 {
    bed.write(REQUEST, &kind.to_le_bytes());
    bed.write(ANSWER, &[0xee; 4]);
    let pieces = [
        readable(REQUEST, cut),
        readable(REQUEST + u64::from(cut), 4 - cut),
        writable(ANSWER, cut),
        writable(ANSWER + u64::from(cut), 4 - cut),
    ];
    bed.driver(0).add(&pieces).unwrap();
    bed.publish(0);
    assert_eq!(bed.used(0).await.written, 4);
    u32::from_le_bytes(bed.read(ANSWER, 4).try_into().unwrap())
}

#[test]
fn the_driver_finds_out_where_the_memory_is() {
    let (parts, _folder) = parts(Access::ReadWrite);
    let profile = parts.profile();
    let expected = [START.to_le_bytes(), ALIGNMENT.to_le_bytes()].concat();
    assert_eq!((profile.device_type, profile.config), (27, expected));
}

#[test]
fn flushes_are_answered_and_nothing_else_is_done() {
    on_both(|| async {
        for access in [Access::ReadWrite, Access::ReadOnly] {
            let (parts, _folder) = parts(access);
            let mut bed = bed(parts).await;
            for cut in 1..4 {
                assert_eq!(request(&mut bed, 0, cut).await, 0);
                assert_eq!(request(&mut bed, 1, cut).await, 1);
                assert_eq!(request(&mut bed, u32::MAX, cut).await, 1);
            }
            bed.finish().await;
        }
    });
}

#[test]
fn many_flushes_share_what_they_wait_for() {
    on_both(|| async {
        let (parts, _folder) = parts(Access::ReadWrite);
        let mut bed = bed(parts).await;
        bed.write(REQUEST, &[0; 4]);
        for index in 0..30 {
            let pieces = [readable(REQUEST, 4), writable(ANSWER + 4 * index, 4)];
            bed.driver(0).add(&pieces).unwrap();
        }
        bed.write(ANSWER, &[0xee; 120]);
        bed.publish(0);
        for _ in 0..30 {
            bed.used(0).await;
        }
        assert_eq!(bed.read(ANSWER, 120), [0; 120]);
        assert_eq!(bed.counts(0).requests, 30);
        bed.finish().await;
    });
}

#[test]
fn a_request_without_room_for_its_answer_breaks_the_queue_until_a_reset() {
    on_both(|| async {
        let (parts, _folder) = parts(Access::ReadWrite);
        let mut bed = bed(parts).await;
        bed.driver(0).add(&[readable(REQUEST, 4), writable(ANSWER, 3)]).unwrap();
        bed.publish(0);
        let BackendEvent::NeedsReset { reason, .. } = bed.events.recv().await.unwrap() else {
            panic!("another event");
        };
        assert!(reason.contains("answer"), "{reason}");
        bed.reset().await;
        bed.new_rings();
        bed.activate_with(bed.features, bed.setups(&[])).await.unwrap();
        assert_eq!(request(&mut bed, 0, 2).await, 0);
        bed.finish().await;
    });
}

#[test]
fn a_successor_answers_what_its_predecessor_did_not() {
    on_both(|| async {
        let (first, _folder) = parts(Access::ReadWrite);
        let region = InflightRegion::create(1, super::QUEUE_SIZE).unwrap();
        let again = || {
            let file = region.file().try_clone_to_owned().unwrap();
            InflightRegion::attach(file, 1, super::QUEUE_SIZE).unwrap()
        };
        let mut bed = TestBed::new(8 << 20, &first.profile());
        bed.write(REQUEST, &[0; 4]);
        for round in 0..10 {
            let parts = first.try_clone().unwrap();
            bed.run(|context| parts.run(Some(again()), context));
            bed.activate_with(bed.features, bed.setups(&[])).await.unwrap();
            if round > 0 {
                bed.used(0).await;
            }
            bed.driver(0).add(&[readable(REQUEST, 4), writable(ANSWER, 4)]).unwrap();
            bed.publish(0);
            for _ in 0..round % 4 {
                executor::yield_now().await;
            }
            bed.kill().await;
        }
        let parts = first.try_clone().unwrap();
        bed.run(|context| parts.run(Some(again()), context));
        bed.activate_with(bed.features, bed.setups(&[])).await.unwrap();
        bed.used(0).await;
        bed.finish().await;
    });
}

#[test]
fn files_are_checked_before_they_are_used() {
    let open = |path: &PathBuf, access, size| PmemFile::open(path, access, size);
    let (path, folder) = file(ALIGNMENT + 1);
    let refused = open(&path, Access::ReadWrite, None).unwrap_err();
    assert!(matches!(refused, PmemError::Length { .. }), "{refused}");
    assert!(refused.to_string().contains("4194304 bytes long"), "{refused}");
    // Zeros behind the end do no harm to who only reads.
    assert_eq!(open(&path, Access::ReadOnly, None).unwrap().length(), ALIGNMENT + 1);
    let refused = open(&path, Access::ReadWrite, Some(ALIGNMENT)).unwrap_err();
    assert!(matches!(refused, PmemError::Longer { .. }));
    let refused = open(&path, Access::ReadWrite, Some(2 * ALIGNMENT + 1)).unwrap_err();
    assert!(matches!(refused, PmemError::Length { .. }));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), ALIGNMENT + 1, "nothing was changed");
    let refused = open(&path, Access::ReadOnly, Some(2 * ALIGNMENT)).unwrap_err();
    assert!(matches!(refused, PmemError::SizeOfReadOnly { .. }));
    let held = open(&path, Access::ReadWrite, Some(2 * ALIGNMENT)).unwrap();
    assert_eq!(held.length(), 2 * ALIGNMENT);
    let refused = open(&path, Access::ReadOnly, None).unwrap_err();
    assert!(matches!(refused, PmemError::Locked { .. }), "{refused}");
    let missing = folder.path().join("missing");
    assert!(matches!(open(&missing, Access::ReadOnly, None), Err(PmemError::Open { .. })));
    let directory = folder.path().to_path_buf();
    assert!(matches!(open(&directory, Access::ReadOnly, None), Err(PmemError::Kind { .. })));
}

#[test]
fn after_a_failed_flush_none_succeeds_here_or_in_a_successor() {
    let sim = Sim::new(1, Faults { sync_error: PerMille(1000), ..Faults::NONE });
    let (file, _) = sim.disk(vec![0; 4096]).unwrap();
    let host = sim.clone();
    let test = async move {
        let file = PmemFile::over(file, Access::ReadWrite, 4096);
        let parts = || PmemParts::new(&file, GuestAddress(START), 4096).unwrap();
        let (queues, size) = parts().profile().inflight_size();
        let region = InflightRegion::create(queues, size).unwrap();
        let mut bed = TestBed::new(8 << 20, &parts().profile());
        bed.run(|context| parts().run(Some(region.clone()), context));
        bed.activate_with(bed.features, bed.setups(&[])).await.unwrap();
        assert_eq!(request(&mut bed, 0, 1).await, 1);
        host.set_faults(Faults::NONE);
        assert_eq!(request(&mut bed, 0, 1).await, 1);
        bed.kill().await;
        bed.run(|context| parts().run(Some(region.clone()), context));
        bed.activate_with(bed.features, bed.setups(&[])).await.unwrap();
        assert_eq!(request(&mut bed, 0, 1).await, 1);
        bed.finish().await;
    };
    in_world(&sim, test);
}
