use std::fs;

use p9::wire::{Reply, Request, Text};

use super::super::*;
use super::bed::*;
use crate::virtio::test_bed::on_both;

fn options() -> P9Options {
    P9Options::new("tag")
}

#[test]
fn the_configuration_has_the_tag() {
    let profile = profile(&options());
    assert_eq!((profile.device_type, profile.features & MOUNT_TAG), (9, 1));
    assert_eq!(profile.config, b"\x03\0tag");
    assert!(P9Parts::new(fs::File::open(".").unwrap().into(), P9Options::new("")).is_err());
}

#[test]
fn files_are_made_written_read_and_removed() {
    on_both(|| async {
        let mut bed = P9Bed::new(options()).await;
        bed.create(2, "file").await.unwrap();
        let data: Vec<u8> = (0..90_000u32).map(|number| number as u8).collect();
        assert_eq!(bed.write(2, 5, &data).await, Ok(90_000));
        assert_eq!(fs::read(bed.path("file")).unwrap()[5..], data);
        assert_eq!(bed.read(2, 5, 90_000).await.unwrap(), data);
        // The end of the file, and behind it; more than a message may have.
        assert_eq!(bed.read(2, 90_000, 4096).await.unwrap(), data[89_995..]);
        assert_eq!(bed.read(2, 100_000, 4096).await.unwrap(), b"");
        bed.write(2, 80_000, &data).await.unwrap();
        assert_eq!(bed.read(2, 0, u32::MAX).await.unwrap().len(), (100 << 10) - 11);
        assert_eq!(bed.write(2, 0, b"").await, Ok(0));
        for datasync in [0, 1] {
            let answer = bed.ask(&Request::Fsync { fid: 2, datasync }).await;
            assert_eq!(answer.reply(), Ok(Reply::Fsync {}));
        }
        bed.ask(&Request::Remove { fid: 2 }).await.reply().unwrap();
        assert_eq!(bed.read(2, 0, 1).await, Err(Errno::BADF));
        assert!(!bed.path("file").exists());
        bed.bed.finish().await;
    });
}

#[test]
fn extended_attributes_go_both_ways() {
    on_both(|| async {
        let mut bed = P9Bed::new(options()).await;
        bed.place("file", "text");
        bed.walk(2, "file").await.unwrap();
        let (name, size) = (Text(b"user.key"), 5);
        let create = Request::Xattrcreate { fid: 2, name, size, flags: 0 };
        bed.ask(&create).await.reply().unwrap();
        assert_eq!(bed.write(2, 0, b"va").await, Ok(2));
        assert_eq!(bed.write(2, 2, b"lue").await, Ok(3));
        if bed.ask(&Request::Clunk { fid: 2 }).await.reply() == Err(Errno::OPNOTSUPP) {
            // The folder's file system has none.
            return bed.bed.finish().await;
        }
        bed.walk(2, "file").await.unwrap();
        let walk = Request::Xattrwalk { fid: 2, newfid: 3, name };
        assert_eq!(bed.ask(&walk).await.reply(), Ok(Reply::Xattrwalk { size }));
        assert_eq!(bed.read(3, 0, 100).await.unwrap(), b"value");
        bed.bed.finish().await;
    });
}

#[test]
fn a_flush_is_answered_after_what_it_flushes() {
    on_both(|| async {
        let mut bed = P9Bed::new(options()).await;
        bed.create(2, "file").await.unwrap();
        for _ in 0..20 {
            // A sync goes through the ring, so it is under way when the flush comes.
            bed.write(2, 0, b"text").await.unwrap();
            bed.send(3, &Request::Fsync { fid: 2, datasync: 0 }, &[]);
            bed.send(4, &Request::Flush { tag: 3 }, &[]);
            assert_eq!(bed.answer(3).await.reply(), Ok(Reply::Fsync {}));
            assert_eq!(bed.answer(4).await.reply(), Ok(Reply::Flush {}));
        }
        assert_eq!(bed.ask(&Request::Flush { tag: 9999 }).await.reply(), Ok(Reply::Flush {}));
        bed.bed.finish().await;
    });
}

#[test]
fn what_is_shared_read_only_stays_as_it_is() {
    on_both(|| async {
        let mut bed = P9Bed::new(P9Options { access: Access::ReadOnly, ..options() }).await;
        bed.place("file", "text");
        assert_eq!(bed.create(2, "new").await, Err(Errno::ROFS));
        bed.walk(3, "file").await.unwrap();
        assert_eq!(bed.open(3, libc::O_RDWR).await, Err(Errno::ROFS));
        bed.open(3, libc::O_RDONLY).await.unwrap();
        assert_eq!(bed.write(3, 0, b"x").await, Err(Errno::ROFS));
        assert_eq!(bed.read(3, 0, 10).await.unwrap(), b"text");
        bed.bed.finish().await;
    });
}

/// After a reset nothing of what a driver had is there.
#[test]
fn a_reset_ends_the_session() {
    on_both(|| async {
        let mut bed = P9Bed::new(options()).await;
        bed.create(2, "file").await.unwrap();
        bed.bed.reset().await;
        bed.bed.new_rings();
        bed.activate().await;
        assert_eq!(bed.read(2, 0, 1).await, Err(Errno::PROTO));
        bed.begin().await;
        assert_eq!(bed.read(2, 0, 1).await, Err(Errno::BADF));
        bed.bed.finish().await;
    });
}
