//! Whose files are whose, by maps.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use fileserver::{Access, Errno, IdMap, IdRange, Ids, NOBODY};
use rustix::process::{getegid, geteuid};

use super::client::*;
use crate::wire::*;

/// What the client sees of a file, and the host.
fn owners(world: &mut World, name: &str) -> ((u32, u32), (u32, u32)) {
    world.client.walk(ROOT, 9, name).unwrap();
    let answer = world.client.ask(&Request::Getattr { fid: 9, mask: 0x7ff }).unwrap();
    let Reply::Getattr { uid, gid, .. } = answer.reply() else { unreachable!() };
    world.client.clunk(9).unwrap();
    let status = fs::symlink_metadata(world.path(name)).unwrap();
    ((uid, gid), (status.uid(), status.gid()))
}

fn give(fid: u32, uid: u32, gid: u32) -> Request<'static> {
    let Request::Setattr { mode, size, atime, atime_nsec, mtime, mtime_nsec, .. } = setattr(0, 0)
    else {
        unreachable!()
    };
    let valid = 2 | 4;
    Request::Setattr { fid, valid, mode, uid, gid, size, atime, atime_nsec, mtime, mtime_nsec }
}

/// Files of all kinds, by a user and a group of the client.
fn make_all(client: &mut Client, root: u32, gid: u32) -> [Result<Answer, Errno>; 4] {
    client.walk(root, 8, "").unwrap();
    let (flags, mode) = (libc::O_RDWR as u32, 0o640);
    let answers = [
        Request::Lcreate { fid: 8, name: text("file"), flags, mode, gid },
        Request::Mkdir { fid: root, name: text("folder"), mode: 0o750, gid },
        Request::Symlink { fid: root, name: text("link"), target: text("file"), gid },
        Request::Mknod {
            fid: root,
            name: text("pipe"),
            mode: libc::S_IFIFO | 0o600,
            major: 0,
            minor: 0,
            gid,
        },
    ]
    .map(|request| client.ask(&request));
    client.clunk(8).unwrap();
    answers
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
    let mut world = World::with(Access::ReadWrite, ids);
    world.client.begin();
    world.client.attach_as(7, 2).unwrap();
    for made in make_all(&mut world.client, 2, 5) {
        made.unwrap();
    }
    for name in ALL {
        assert_eq!(owners(&mut world, name), ((7, 5), (uid, gid)), "{name}");
    }
    // The same once more, which takes no privilege; and those who have no number on the host.
    world.client.walk(ROOT, 3, "file").unwrap();
    world.client.ask(&give(3, 7, 5)).unwrap();
    for (uid, gid) in [(0, 5), (7, 0), (8, 5), (1010, 5), (NOBODY, 5), (u32::MAX - 1, 5)] {
        assert!(world.client.ask(&give(3, uid, gid)).is_err(), "{uid}:{gid}");
    }
    world.client.attach_as(8, 4).unwrap();
    for name in ALL {
        let flags = if name == "folder" { libc::AT_REMOVEDIR as u32 } else { 0 };
        world.client.ask(&Request::Unlinkat { fid: ROOT, name: text(name), flags }).unwrap();
    }
    for made in make_all(&mut world.client, 4, 5) {
        assert_eq!(made, Err(Errno::OVERFLOW));
    }
    assert_eq!(fs::read_dir(world.path("")).unwrap().count(), 0, "and nothing is made");
    assert_eq!(owners(&mut world, "").0, (7, 5));
    if !geteuid().is_root() {
        // Nobody else may give files away.
        return;
    }
    world.client.attach_as(1003, 5).unwrap();
    for made in make_all(&mut world.client, 5, 1004) {
        made.unwrap();
    }
    for name in ALL {
        assert_eq!(owners(&mut world, name), ((1003, 1004), (200_003, 200_004)), "{name}");
    }
    world.client.walk(ROOT, 6, "file").unwrap();
    world.client.ask(&give(6, 1009, 1000)).unwrap();
    assert_eq!(owners(&mut world, "file"), ((1009, 1000), (200_009, 200_000)));
    chown(world.path("file"), Some(300_000), Some(200_010)).unwrap();
    assert_eq!(owners(&mut world, "file").0, (NOBODY, NOBODY));
}

#[test]
fn without_maps_all_is_the_clients_roots() {
    let mut world = World::new(Access::ReadWrite);
    let host = (geteuid().as_raw(), getegid().as_raw());
    world.client.attach_as(1000, 2).unwrap();
    for made in make_all(&mut world.client, 2, 1000) {
        made.unwrap();
    }
    for name in ALL {
        assert_eq!(owners(&mut world, name), ((0, 0), host), "{name}");
    }
    world.client.walk(ROOT, 3, "file").unwrap();
    assert_eq!(world.client.ask(&give(3, 1000, 0)), Err(Errno::PERM));
    world.client.ask(&give(3, 0, 0)).unwrap();
}
