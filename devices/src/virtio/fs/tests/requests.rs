use std::fs;
use std::os::unix::fs::PermissionsExt;

use zerocopy::{FromBytes, IntoBytes};

use super::super::protocol::*;
use super::super::*;
use super::bed::*;
use crate::virtio::test_bed::on_both;

fn options() -> FsOptions {
    FsOptions::new("tag")
}

#[test]
fn the_configuration_has_tag_and_queues() {
    let profile = profile(&FsOptions { queues: 3, ..options() });
    assert_eq!(profile.device_type, 26);
    assert_eq!(profile.config.len(), 40);
    assert_eq!(&profile.config[..4], b"tag\0");
    assert_eq!(profile.config[36..], [3, 0, 0, 0]);
    assert_eq!(profile.queue_sizes.len(), 4);
}

#[test]
fn files_are_made_written_read_and_removed() {
    on_both(|| async {
        let mut bed = FsBed::new(options()).await;
        let create =
            CreateIn { flags: libc::O_RDWR as u32, mode: 0o100_640, umask: 0o022, open_flags: 0 };
        let arguments = [create.as_bytes(), &text("file")].concat();
        let answer = bed.ask(Opcode::Create, 1, &arguments, 144).await.unwrap();
        let (entry, open) = EntryOut::read_from_prefix(&answer).unwrap();
        let handle = OpenOut::read_from_bytes(open).unwrap().handle;
        assert_eq!(entry.attr.mode, 0o100_640);
        // More than a page, and the data begins behind the arguments.
        let data: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
        let write = transfer(handle, 5, data.len() as u32);
        let arguments = [write.as_bytes(), &data].concat();
        let answer = bed.ask(Opcode::Write, entry.node, &arguments, 8).await.unwrap();
        assert_eq!(WriteOut::read_from_bytes(&answer).unwrap().size, 100_000);
        assert_eq!(fs::read(bed.path("file")).unwrap()[5..], data);
        let answer = bed.read(handle, 5, 65536).await.unwrap();
        assert_eq!(answer, data[..65536]);
        // The end of the file, and behind it.
        assert_eq!(bed.read(handle, 100_000, 65536).await.unwrap().len(), 5);
        assert_eq!(bed.read(handle, 200_000, 65536).await.unwrap().len(), 0);
        let sync = FsyncIn { handle, flags: 1, padding: 0 };
        bed.ask(Opcode::Fsync, entry.node, sync.as_bytes(), 0).await.unwrap();
        let range = FallocateIn { handle, offset: 0, length: 300_000, mode: 0, padding: 0 };
        bed.ask(Opcode::Fallocate, entry.node, range.as_bytes(), 0).await.unwrap();
        assert_eq!(fs::metadata(bed.path("file")).unwrap().len(), 300_000);
        bed.ask(Opcode::Unlink, 1, &text("file"), 0).await.unwrap();
        assert_eq!(bed.look_up(1, "file").await.map(drop), Err(Errno::NOENT));
        assert_eq!(bed.read(handle, 5, 100).await.unwrap(), data[..100]);
        let release = ReleaseIn { handle, flags: 0, release_flags: 0, lock_owner: 0 };
        bed.ask(Opcode::Release, entry.node, release.as_bytes(), 0).await.unwrap();
        assert_eq!(bed.read(handle, 0, 1).await, Err(Errno::BADF));
        bed.bed.finish().await;
    });
}

#[test]
fn directories_are_read_with_and_without_looking_up() {
    on_both(|| async {
        let mut bed = FsBed::new(options()).await;
        for number in 0..100 {
            bed.place(&format!("file-{number:02}"), "text");
        }
        let open = bed.ask(Opcode::Opendir, 1, OpenIn { flags: 0, open_flags: 0 }.as_bytes(), 16);
        let handle = OpenOut::read_from_bytes(&open.await.unwrap()).unwrap().handle;
        for (opcode, head) in [(Opcode::Readdir, 0), (Opcode::Readdirplus, 128)] {
            let mut names = Vec::new();
            let mut next = 0;
            loop {
                let read = transfer(handle, next, 4096);
                let answer = bed.ask(opcode, 1, read.as_bytes(), 4096).await.unwrap();
                if answer.is_empty() {
                    break;
                }
                let mut rest = &answer[..];
                while !rest.is_empty() {
                    let (entry, name) = Dirent::read_from_prefix(&rest[head..]).unwrap();
                    let length = entry.name_length as usize;
                    names.push(String::from_utf8(name[..length].to_vec()).unwrap());
                    if head > 0 && length > 2 {
                        let found = EntryOut::read_from_prefix(rest).unwrap().0;
                        assert_eq!((found.attr.size, found.attr.inode), (4, entry.inode));
                    }
                    next = entry.next;
                    rest = &rest[head + (24 + length).next_multiple_of(8)..];
                }
            }
            names.sort();
            assert_eq!(names.len(), 102);
            assert_eq!(names[2], "file-00");
        }
        bed.bed.finish().await;
    });
}

#[test]
fn attributes_are_seen_and_changed() {
    on_both(|| async {
        let mut bed = FsBed::new(options()).await;
        bed.place("file", "text");
        let entry = bed.look_up(1, "file").await.unwrap();
        assert_eq!((entry.entry_valid, entry.attr.size, entry.attr.uid), (1, 4, 0));
        let mut change = SetattrIn::read_from_bytes(&[0; 88]).unwrap();
        (change.valid, change.mode, change.size) = (SET_MODE | SET_SIZE, 0o600, 2);
        let answer = bed.ask(Opcode::Setattr, entry.node, change.as_bytes(), 104).await.unwrap();
        assert_eq!(AttrOut::read_from_bytes(&answer).unwrap().attr.size, 2);
        let status = fs::metadata(bed.path("file")).unwrap();
        assert_eq!((status.len(), status.permissions().mode() & 0o777), (2, 0o600));
        (change.valid, change.uid) = (SET_UID, 5);
        let answer = bed.ask(Opcode::Setattr, entry.node, change.as_bytes(), 104).await;
        assert_eq!(answer, Err(Errno::PERM));
        let answer = bed.ask(Opcode::Statfs, 1, &[], 80).await.unwrap();
        assert!(StatfsOut::read_from_bytes(&answer).unwrap().blocks > 0);
        let forget = ForgetIn { lookups: 1 };
        bed.send(Opcode::Forget, entry.node, forget.as_bytes(), 0);
        assert_eq!(bed.bed.used(QUEUE).await.written, 0);
        let get = GetattrIn { flags: 0, padding: 0, handle: 0 };
        let answer = bed.ask(Opcode::Getattr, entry.node, get.as_bytes(), 104).await;
        assert_eq!(answer, Err(Errno::STALE));
        bed.bed.finish().await;
    });
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    on_both(|| async {
        let mut bed = FsBed::new(options()).await;
        // GETLK to SETLKW, ACCESS, FLUSH, BMAP, IOCTL, POLL, SYNCFS, STATX, and what there is not.
        for opcode in [31, 32, 33, 34, 25, 37, 39, 40, 50, 52, 0, 7, 4096, u32::MAX] {
            let answer = bed.ask_raw(opcode).await;
            assert_eq!(answer, Err(Errno::NOSYS), "opcode {opcode}");
        }
        bed.bed.finish().await;
    });
}

#[test]
fn a_session_begins_with_init_and_ends_with_a_reset() {
    on_both(|| async {
        let mut bed = FsBed::idle(options()).await;
        assert_eq!(bed.look_up(1, "file").await.map(drop), Err(Errno::IO));
        let old = InitIn { major: 7, minor: 20, max_readahead: 0, flags: 0 };
        let answer = bed.ask(Opcode::Init, 0, old.as_bytes(), 64).await;
        assert_eq!(answer, Err(Errno::PROTO));
        bed.init().await;
        bed.place("file", "text");
        let node = bed.look_up(1, "file").await.unwrap().node;
        let handle = bed.open(node, 0).await.unwrap();
        bed.bed.reset().await;
        bed.bed.new_rings();
        bed.activate().await;
        assert_eq!(bed.read(handle, 0, 4).await, Err(Errno::IO));
        bed.init().await;
        assert_eq!(bed.read(handle, 0, 4).await, Err(Errno::BADF));
        assert_ne!(bed.look_up(1, "file").await.unwrap().node, node);
        bed.bed.finish().await;
    });
}
