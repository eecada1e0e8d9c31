//! Whatever a client asks for, what is shared read-only stays as it is.

use std::fs;
use std::os::unix::fs::MetadataExt;

use fileserver::{Access, Errno};

use super::client::*;
use crate::wire::*;

/// A fid of the file, and one of the root that is no other request's.
const FILE: u32 = 2;
const OTHER: u32 = 3;
/// The file, open for reading.
const OPEN: u32 = 4;

/// Messages of a type that change something where that is allowed. None for those that change nothing.
fn changes(kind: u8) -> Vec<Request<'static>> {
    let (new, file, folder) = (text("new"), text("file"), text("folder"));
    let truncating = (libc::O_RDONLY | libc::O_TRUNC) as u32;
    let (root, gid) = (ROOT, 0);
    match kind {
        12 => [libc::O_WRONLY as u32, libc::O_RDWR as u32, truncating]
            .map(|flags| Request::Lopen { fid: FILE, flags })
            .into(),
        14 => [(new, 2), (new, 0), (file, 0), (file, truncating)]
            .map(|(name, flags)| Request::Lcreate { fid: OTHER, name, flags, mode: 0o600, gid })
            .into(),
        16 => vec![Request::Symlink { fid: root, name: new, target: file, gid }],
        18 => [libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK]
            .map(|kind| kind | 0o600)
            .map(|mode| Request::Mknod { fid: root, name: new, mode, major: 0, minor: 0, gid })
            .into(),
        20 => vec![Request::Rename { fid: FILE, directory: root, name: new }],
        // Each field by itself: mode, owner, group, size, times, of now or given.
        26 => [1, 2, 4, 8, 16, 32, 16 | 128, 32 | 256].map(|valid| setattr(FILE, valid)).into(),
        70 => vec![Request::Link { directory: root, fid: FILE, name: new }],
        72 => vec![Request::Mkdir { fid: root, name: new, mode: 0o700, gid }],
        74 => vec![
            Request::Renameat { from: root, old: file, to: root, new },
            Request::Renameat { from: root, old: folder, to: root, new },
        ],
        76 => vec![
            Request::Unlinkat { fid: root, name: file, flags: 0 },
            Request::Unlinkat { fid: root, name: folder, flags: libc::AT_REMOVEDIR as u32 },
        ],
        118 => vec![Request::Write { fid: OPEN, offset: 0, count: 0 }],
        122 => vec![Request::Remove { fid: FILE }],
        // Statfs, Readlink, Getattr, Xattrwalk, Readdir, Fsync, Lock, Getlock; Version, Auth, Attach, Flush, Walk,
        // Read, Clunk. Of an Xattrcreate (32) it is the end of the fid that is refused: see below.
        8 | 22 | 24 | 30 | 32 | 40 | 50 | 52 | 54 | 100..=116 | 120 => Vec::new(),
        kind => panic!("whether message {kind} changes something has to be said here"),
    }
}

#[test]
fn read_only_is_read_only_for_every_message() {
    let mut world = World::new(Access::ReadOnly);
    fs::write(world.path("file"), "text").unwrap();
    fs::create_dir(world.path("folder")).unwrap();
    let path = world.path("");
    let as_it_was = || {
        let seen = |name: &str| {
            let status = fs::metadata(path.join(name)).unwrap();
            (status.mode(), status.len(), status.mtime_nsec(), status.ctime_nsec())
        };
        (fs::read_dir(&path).unwrap().count(), seen("file"), seen("folder"), seen(""))
    };
    let before = as_it_was();
    let client = &mut world.client;
    let mut refused = 0;
    for kind in Request::KINDS {
        for request in changes(*kind) {
            client.walk(ROOT, FILE, "file").unwrap();
            client.walk(ROOT, OTHER, "").unwrap();
            client.walk(ROOT, OPEN, "file").unwrap();
            client.open(OPEN, libc::O_RDONLY).unwrap();
            assert_eq!(client.ask(&request), Err(Errno::ROFS), "{request:?}");
            refused += 1;
            for fid in [FILE, OTHER, OPEN] {
                // One that was to be removed is gone with it, removed or not.
                let gone = fid == FILE && *kind == 122;
                assert_eq!(client.clunk(fid).is_err(), gone, "{request:?}");
            }
        }
    }
    assert_eq!(refused, 28);
    for (name, size) in [("user.a", 1), ("user.a", 0), ("system.posix_acl_access", 0)] {
        client.walk(ROOT, FILE, "file").unwrap();
        let create = Request::Xattrcreate { fid: FILE, name: text(name), size, flags: 0 };
        let made = client.ask(&create).map(drop);
        let written = match (&made, size) {
            (Ok(()), 1) => client.write(FILE, 0, b"x").map(drop),
            _ => made,
        };
        let ended = client.clunk(FILE);
        assert!(written.is_err() || ended == Err(Errno::ROFS), "{name}: {written:?}, {ended:?}");
    }
    // All others, with whatever they may mean; a new version would end the session.
    for kind in Request::KINDS.iter().filter(|kind| changes(**kind).is_empty() && **kind != 100) {
        for length in [4, 12, 16, 20, 32] {
            if let Ok(request) = Request::decode(*kind, &[0; 32][..length]) {
                client.send(&request, &[]);
                client.receive();
            }
        }
    }
    assert_eq!(as_it_was(), before);
    let mut other = world.another();
    other.walk(ROOT, OPEN, "file").unwrap();
    other.open(OPEN, libc::O_RDONLY).unwrap();
    assert_eq!(other.read(OPEN, 0, 10).unwrap(), b"text");
}
