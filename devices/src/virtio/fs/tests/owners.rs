//! Whose files are whose, by maps.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use fileserver::{Errno, IdMap, IdRange, Ids, NOBODY};
use rustix::process::{getegid, geteuid};
use zerocopy::{FromBytes, IntoBytes};

use super::super::protocol::*;
use super::super::*;
use super::bed::*;
use crate::virtio::test_bed::on_both;

/// What the driver sees of a file, and the host.
async fn owners(bed: &mut FsBed, name: &str) -> ((u32, u32), (u32, u32)) {
    let Attr { uid, gid, .. } = bed.look_up(1, name).await.unwrap().attr;
    let status = fs::symlink_metadata(bed.path(name)).unwrap();
    ((uid, gid), (status.uid(), status.gid()))
}

async fn give(bed: &mut FsBed, node: u64, uid: u32, gid: u32) -> Result<(u32, u32), Errno> {
    let mut arguments = SetattrIn::read_from_bytes(&[0; 88]).unwrap();
    (arguments.valid, arguments.uid, arguments.gid) = (SET_UID | SET_GID, uid, gid);
    let answer = bed.ask(Opcode::Setattr, node, arguments.as_bytes(), 104).await?;
    let Attr { uid, gid, .. } = AttrOut::read_from_bytes(&answer).unwrap().attr;
    Ok((uid, gid))
}

/// Files of all kinds, by a user and a group of the driver.
async fn make_all(bed: &mut FsBed, caller: (u32, u32)) -> Vec<Result<(), Errno>> {
    bed.caller = caller;
    let create = CreateIn { flags: libc::O_RDWR as u32, mode: 0o640, umask: 0, open_flags: 0 };
    let pipe = MknodIn { mode: libc::S_IFIFO | 0o600, rdev: 0, umask: 0, padding: 0 };
    let folder = MkdirIn { mode: 0o750, umask: 0 };
    let mut made = Vec::new();
    for (opcode, arguments) in [
        (Opcode::Create, [create.as_bytes(), &text("file")].concat()),
        (Opcode::Mkdir, [folder.as_bytes(), &text("folder")].concat()),
        (Opcode::Symlink, [text("link"), text("file")].concat()),
        (Opcode::Mknod, [pipe.as_bytes(), &text("pipe")].concat()),
    ] {
        made.push(bed.ask(opcode, 1, &arguments, 144).await.map(drop));
    }
    bed.caller = (0, 0);
    made
}

const ALL: [&str; 4] = ["file", "folder", "link", "pipe"];

#[test]
fn owners_go_both_ways() {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let one = |host, client| IdRange { host, client, count: 1 };
    let range = IdRange { host: 200_000, client: 1000, count: 10 };
    let ids = Ids::Mapped {
        users: IdMap::new(vec![one(uid, 7), range]),
        groups: IdMap::new(vec![one(gid, 5), range]),
    };
    on_both(move || {
        let options = FsOptions { ids: ids.clone(), ..FsOptions::new("tag") };
        async move {
            let mut bed = FsBed::new(options).await;
            assert_eq!(make_all(&mut bed, (7, 5)).await, [Ok(()); 4]);
            for name in ALL {
                assert_eq!(owners(&mut bed, name).await, ((7, 5), (uid, gid)), "{name}");
            }
            // The same once more, which takes no privilege; and those who have no number on the host.
            let node = bed.look_up(1, "file").await.unwrap().node;
            assert_eq!(give(&mut bed, node, 7, 5).await, Ok((7, 5)));
            for (uid, gid) in [(0, 5), (7, 0), (8, 5), (1010, 5), (NOBODY, 5), (u32::MAX - 1, 5)] {
                assert!(give(&mut bed, node, uid, gid).await.is_err(), "{uid}:{gid}");
            }
            for name in ALL {
                let opcode = if name == "folder" { Opcode::Rmdir } else { Opcode::Unlink };
                bed.ask(opcode, 1, &text(name), 0).await.unwrap();
            }
            assert_eq!(make_all(&mut bed, (8, 5)).await, [Err(Errno::OVERFLOW); 4]);
            assert_eq!(fs::read_dir(bed.path("")).unwrap().count(), 0, "and nothing is made");
            if geteuid().is_root() {
                // Nobody else may give files away.
                assert_eq!(make_all(&mut bed, (1003, 1004)).await, [Ok(()); 4]);
                for name in ALL {
                    let expected = ((1003, 1004), (200_003, 200_004));
                    assert_eq!(owners(&mut bed, name).await, expected, "{name}");
                }
                let node = bed.look_up(1, "file").await.unwrap().node;
                assert_eq!(give(&mut bed, node, 1009, 1000).await, Ok((1009, 1000)));
                assert_eq!(owners(&mut bed, "file").await.1, (200_009, 200_000));
                chown(bed.path("file"), Some(300_000), Some(200_010)).unwrap();
                assert_eq!(owners(&mut bed, "file").await.0, (NOBODY, NOBODY));
            }
            bed.bed.finish().await;
        }
    });
}

#[test]
fn without_maps_all_is_the_drivers_roots() {
    on_both(|| async {
        let mut bed = FsBed::new(FsOptions::new("tag")).await;
        let host = (geteuid().as_raw(), getegid().as_raw());
        assert_eq!(make_all(&mut bed, (1000, 1000)).await, [Ok(()); 4]);
        for name in ALL {
            assert_eq!(owners(&mut bed, name).await, ((0, 0), host), "{name}");
        }
        let node = bed.look_up(1, "file").await.unwrap().node;
        assert_eq!(give(&mut bed, node, 1000, 0).await, Err(Errno::PERM));
        assert_eq!(give(&mut bed, node, 0, 0).await, Ok((0, 0)));
        bed.bed.finish().await;
    });
}
