use std::fs;

use executor::DriverChoice;
use p9::wire::{Reply, Request, Text};

use super::super::*;
use super::bed::*;
use crate::virtio::test_bed::on;

/// The driver goes on with what it knows.
#[test]
fn a_successor_knows_what_the_driver_knows() {
    on(DriverChoice::Epoll, || async {
        let region = region();
        let mut bed = P9Bed::idle(P9Options::new("tag"), Some(again(&region))).await;
        bed.begin().await;
        bed.create(2, "file").await.unwrap();
        bed.write(2, 0, b"text").await.unwrap();
        for _ in 0..3 {
            bed.bed.kill().await;
            bed.start(Some(again(&region)));
            bed.activate().await;
            assert_eq!(bed.read(2, 0, 10).await.unwrap(), b"text");
            bed.walk(3, "file").await.unwrap();
            bed.ask(&Request::Clunk { fid: 3 }).await.reply().unwrap();
        }
        bed.bed.finish().await;
    });
}

/// A change that was made, and whose answer the driver has not seen, is not made twice; also where the messages
/// before had the same tag and the same place.
#[test]
fn what_was_done_is_not_done_again() {
    let (fid, gid) = (ROOT, 0);
    let table = [
        Request::Mkdir { fid, name: Text(b"d"), mode: 0o755, gid },
        Request::Unlinkat { fid, name: Text(b"gone"), flags: 0 },
        Request::Renameat { from: fid, old: Text(b"old"), to: fid, new: Text(b"new") },
        Request::Symlink { fid, name: Text(b"l"), target: Text(b"x"), gid },
    ];
    on(DriverChoice::Epoll, || async {
        for request in &table {
            let region = region();
            let mut bed = P9Bed::idle(P9Options::new("tag"), Some(again(&region))).await;
            bed.begin().await;
            // As if a predecessor had begun, made its change, and died.
            bed.bed.kill().await;
            let head = bed.send(1, request, &[]);
            let order = bed.take_and_die(&region);
            bed.ledger().journal(head.into()).begin(order);
            match request {
                Request::Mkdir { .. } => fs::create_dir(bed.path("d")).unwrap(),
                Request::Renameat { .. } => bed.place("new", "text"),
                Request::Symlink { .. } => {
                    std::os::unix::fs::symlink("x", bed.path("l")).unwrap();
                }
                _ => {}
            }
            bed.start(Some(again(&region)));
            bed.activate().await;
            let answer = bed.answer(1).await;
            assert!(answer.reply().is_ok(), "{request:?}: {answer:?}");
            bed.bed.finish().await;
        }
    });
}

fn make(name: &str) -> Request<'_> {
    Request::Mkdir { fid: ROOT, name: Text(name.as_bytes()), mode: 0o755, gid: 0 }
}

/// What is noted of a message that is over is nothing about the next one in its place.
#[test]
fn notes_of_the_past_are_not_taken_for_the_present() {
    on(DriverChoice::Epoll, || async {
        let region = region();
        let mut bed = P9Bed::idle(P9Options::new("tag"), Some(again(&region))).await;
        bed.begin().await;
        for round in 0..4 {
            let names = [format!("a{round}"), format!("b{round}")];
            // One that is done, and one that was only taken, with the same tag and place.
            bed.ask(&make(&names[0])).await.reply().unwrap();
            bed.bed.kill().await;
            bed.send(1, &make(&names[1]), &[]);
            bed.take_and_die(&region);
            bed.start(Some(again(&region)));
            bed.activate().await;
            assert!(matches!(bed.answer(1).await.reply(), Ok(Reply::Mkdir { .. })));
            assert!(bed.path(&names[1]).exists(), "it was made");
            // One that is there already is no success.
            assert_eq!(bed.ask(&make(&names[1])).await.reply(), Err(Errno::EXIST));
        }
        bed.bed.finish().await;
    });
}
