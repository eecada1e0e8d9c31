use std::fs;

use executor::DriverChoice;
use zerocopy::IntoBytes;

use super::super::protocol::{MkdirIn, RenameIn};
use super::super::*;
use super::bed::*;
use crate::virtio::test_bed::on;

fn region() -> InflightRegion {
    InflightRegion::create(2, QUEUE_SIZE).unwrap()
}

fn again(region: &InflightRegion) -> InflightRegion {
    let file = region.file().try_clone_to_owned().unwrap();
    InflightRegion::attach(file, 2, QUEUE_SIZE).unwrap()
}

/// The driver goes on with what it knows.
#[test]
fn a_successor_knows_what_the_driver_knows() {
    on(DriverChoice::Epoll, || async {
        let region = region();
        let mut bed = FsBed::idle(FsOptions::new("tag")).await;
        bed.start(Some(again(&region)));
        bed.activate().await;
        bed.init().await;
        bed.place("file", "text");
        let node = bed.look_up(1, "file").await.unwrap().node;
        let handle = bed.open(node, libc::O_RDWR).await.unwrap();
        for _ in 0..3 {
            bed.bed.kill().await;
            bed.start(Some(again(&region)));
            bed.activate().await;
            assert_eq!(bed.read(handle, 0, 10).await.unwrap(), b"text");
            assert_eq!(bed.look_up(1, "file").await.unwrap().node, node);
        }
        bed.bed.finish().await;
    });
}

/// A change that was made, and whose answer the driver has not seen, is not made twice.
#[test]
fn what_was_done_is_not_done_again() {
    let mkdir = [MkdirIn { mode: 0o755, umask: 0 }.as_bytes(), &text("d")].concat();
    let rename = [RenameIn { to: 1 }.as_bytes(), &text("old"), &text("new")].concat();
    let table = [
        (Opcode::Mkdir, mkdir),
        (Opcode::Unlink, text("gone")),
        (Opcode::Rename, rename),
        (Opcode::Symlink, [text("l"), text("x")].concat()),
    ];
    on(DriverChoice::Epoll, || async {
        for (opcode, arguments) in &table {
            let region = region();
            let mut bed = FsBed::idle(FsOptions::new("tag")).await;
            bed.start(Some(again(&region)));
            bed.activate().await;
            bed.init().await;
            // As if a predecessor had begun, made its change, and died.
            bed.bed.kill().await;
            let head = bed.send(*opcode, 1, arguments, 128);
            let ledger = bed.ledger();
            let place = usize::from(QUEUE_SIZE) + usize::from(head);
            ledger.journal(place).begin(bed.unique());
            match opcode {
                Opcode::Mkdir => fs::create_dir(bed.path("d")).unwrap(),
                Opcode::Rename => bed.place("new", "text"),
                Opcode::Symlink => std::os::unix::fs::symlink("x", bed.path("l")).unwrap(),
                _ => {}
            }
            bed.take_and_die(&region);
            bed.start(Some(again(&region)));
            bed.activate().await;
            let answer = bed.answer().await;
            assert!(answer.is_ok(), "{opcode:?}: {answer:?}");
            bed.bed.finish().await;
        }
    });
}
