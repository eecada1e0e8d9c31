//! A hostile client: ways out of the directory in the words of 9P, none of which leads there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fileserver::{Access, Errno};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, makedev, mknodat, renameat_with};

use super::client::*;
use crate::wire::*;

/// Links that the host left in the directory, or that the client made: both are the same.
fn links(world: &World) -> Vec<(&'static str, PathBuf)> {
    vec![
        ("absolute", world.path("../secret")),
        ("relative", "../secret".into()),
        ("folder", world.path("..")),
        ("up", "..".into()),
        ("further-up", "../../../../../..".into()),
        ("root", "/".into()),
        ("proc-root", "/proc/self/root".into()),
        ("proc-cwd", "/proc/self/cwd".into()),
        ("proc-fd", "/proc/self/fd".into()),
        ("proc-fd-0", "/proc/self/fd/0".into()),
        ("chain", "absolute".into()),
        ("loop", "loop".into()),
    ]
}

/// All that can be tried with a name in a directory. `file` is one whose fid the client has.
fn attempts(fid: u32, name: Text<'_>, file: u32) -> Vec<Request<'_>> {
    vec![
        Request::Mkdir { fid, name, mode: 0o777, gid: 0 },
        Request::Symlink { fid, name, target: text("x"), gid: 0 },
        Request::Mknod { fid, name, mode: libc::S_IFCHR | 0o666, major: 1, minor: 5, gid: 0 },
        Request::Mknod { fid, name, mode: libc::S_IFREG | 0o666, major: 0, minor: 0, gid: 0 },
        Request::Unlinkat { fid, name, flags: 0 },
        Request::Unlinkat { fid, name, flags: 0x200 },
        Request::Renameat { from: fid, old: name, to: ROOT, new: text("got") },
        Request::Renameat { from: ROOT, old: text("file"), to: fid, new: name },
        Request::Link { directory: fid, fid: file, name },
        Request::Rename { fid: file, directory: fid, name },
        Request::Lcreate { fid, name, flags: libc::O_RDWR as u32, mode: 0o666, gid: 0 },
    ]
}

fn assert_unharmed(world: &World) {
    assert_eq!(fs::read_to_string(world.path("../secret")).unwrap(), "secret");
    let names = fs::read_dir(world.path("..")).unwrap().count();
    assert_eq!(names, 3, "the directory, the secret and the socket");
    assert_eq!(fs::read_to_string(world.path("file")).unwrap(), "text");
}

#[test]
fn no_link_leads_out() {
    let mut world = World::new(Access::ReadWrite);
    fs::write(world.path("file"), "text").unwrap();
    let mut refused = 0;
    for (link, target) in links(&world) {
        symlink(&target, world.path(link)).unwrap();
        let client = &mut world.client;
        client.walk(ROOT, 2, "file").unwrap();
        client.walk(ROOT, 3, link).unwrap();
        for flags in [0, libc::O_RDWR, libc::O_WRONLY | libc::O_TRUNC, libc::O_DIRECTORY] {
            assert!(client.open(3, flags).is_err(), "{link}, {flags:o}");
            refused += 1;
        }
        for below in ["secret", "etc", "0"] {
            // A walk goes as far as it leads: not beyond the link.
            assert!(client.walk(3, 4, below).is_err(), "{link}/{below}");
            assert_eq!(client.walk(ROOT, 4, &format!("{link}/{below}")), Ok(1));
            assert_eq!(client.clunk(4), Err(Errno::BADF));
            for request in attempts(3, text(below), 2) {
                assert!(client.ask(&request).is_err(), "{link}, {request:?}");
                refused += 1;
            }
        }
        // Up from a link is no way either.
        assert!(client.walk(3, 4, "..").is_err(), "{link}");
        client.clunk(2).unwrap();
        client.clunk(3).unwrap();
    }
    assert!(refused >= 60, "{refused}");
    assert_unharmed(&world);
}

#[test]
fn no_name_leads_out() {
    let mut world = World::new(Access::ReadWrite);
    fs::write(world.path("file"), "text").unwrap();
    let secret = world.path("../secret");
    let names =
        ["", ".", "..", "../x", "../secret", "/", secret.to_str().unwrap(), "a/../../x", "a/"];
    let client = &mut world.client;
    for name in names {
        client.walk(ROOT, 2, "file").unwrap();
        client.walk(ROOT, 3, "").unwrap();
        for request in attempts(3, text(name), 2) {
            assert!(client.ask(&request).is_err(), "{name:?}, {request:?}");
        }
        client.clunk(2).unwrap();
        client.clunk(3).unwrap();
    }
    // Up from the root is the root, however often.
    assert_eq!(client.walk(ROOT, 4, "../../../../.."), Ok(5));
    assert_eq!(client.walk(4, 5, "secret"), Err(Errno::NOENT));
    // Device files are not made, and those that are there not opened; to make one takes a privilege.
    let (mode, name) = (libc::S_IFCHR | 0o666, text("zero"));
    let device = Request::Mknod { fid: ROOT, name, mode, major: 1, minor: 5, gid: 0 };
    assert_eq!(client.ask(&device), Err(Errno::PERM));
    let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o666));
    if mknodat(CWD, world.path("zero"), kind, mode, makedev(1, 5)).is_ok() {
        world.client.walk(ROOT, 6, "zero").unwrap();
        assert_eq!(world.client.open(6, libc::O_RDONLY), Err(Errno::NXIO));
    }
    assert_unharmed(&world);
}

#[test]
fn fids_that_nobody_has_are_refused() {
    let mut world = World::new(Access::ReadWrite);
    fs::write(world.path("file"), "text").unwrap();
    let client = &mut world.client;
    client.walk(ROOT, 2, "file").unwrap();
    client.open(2, libc::O_RDWR).unwrap();
    // Another client's fids are none of this one's.
    let mut other = world.another();
    for fid in [2, 7, NO_FID, NO_FID - 1] {
        assert_eq!(other.read(fid, 0, 4), Err(Errno::BADF), "{fid}");
        assert_eq!(other.write(fid, 0, b"x"), Err(Errno::BADF), "{fid}");
        assert_eq!(other.walk(fid, 9, "file"), Err(Errno::BADF), "{fid}");
        for request in attempts(fid, text("new"), ROOT) {
            assert!(other.ask(&request).is_err(), "{request:?}");
        }
    }
    assert_unharmed(&world);
}

/// Whatever is there for a moment, a file that is read is one of the directory.
#[test]
fn races_with_links_are_not_won() {
    let mut world = World::new(Access::ReadWrite);
    fs::write(world.path("file"), "text").unwrap();
    fs::create_dir(world.path("d")).unwrap();
    fs::write(world.path("d/secret"), "inside").unwrap();
    fs::write(world.path("f"), "inside").unwrap();
    symlink("..", world.path("d2")).unwrap();
    symlink("../secret", world.path("f2")).unwrap();
    let end = Arc::new(AtomicBool::new(false));
    let (stop, shared) = (end.clone(), world.path(""));
    let swapper = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            for (one, two) in [("d", "d2"), ("f", "f2")] {
                let (one, two) = (shared.join(one), shared.join(two));
                renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE).unwrap();
            }
        }
    });
    let client = &mut world.client;
    let (mut read, mut rounds) = (0, 0);
    while rounds < 2000 || read == 0 {
        rounds += 1;
        let (path, length) = if rounds % 2 == 0 { ("d/secret", 2) } else { ("f", 1) };
        if client.walk(ROOT, 2, path) != Ok(length) {
            continue;
        }
        if client.open(2, libc::O_RDWR).is_ok() {
            assert_eq!(client.read(2, 0, 10).unwrap(), b"inside");
            read += 1;
        }
        client.clunk(2).unwrap();
    }
    end.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert_unharmed(&world);
}
