use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use fileserver::{Access, Errno};

use super::client::*;
use crate::wire::*;

#[test]
fn files_are_made_written_read_and_removed() {
    let mut world = World::new(Access::ReadWrite);
    let client = &mut world.client;
    client.create(2, "file").unwrap();
    let data: Vec<u8> = (0..300_000u32).map(|number| number as u8).collect();
    assert_eq!(client.write(2, 5, &data), Ok(300_000));
    assert_eq!(client.read(2, 5, 300_000), Ok(data.clone()));
    assert_eq!(client.read(2, 300_000, 100).unwrap().len(), 5);
    assert_eq!(client.read(2, 400_000, 100).unwrap().len(), 0);
    // As much as a message has room for.
    client.write(2, 300_000, &data).unwrap();
    assert_eq!(client.read(2, 0, u32::MAX).unwrap().len(), (512 << 10) - READ_HEADER_BYTES);
    for datasync in [0, 1] {
        client.ask(&Request::Fsync { fid: 2, datasync }).unwrap();
    }
    client.walk(ROOT, 3, "file").unwrap();
    client.ask(&Request::Unlinkat { fid: ROOT, name: text("file"), flags: 0 }).unwrap();
    assert_eq!(client.walk(ROOT, 4, "file"), Err(Errno::NOENT));
    // It is still there for whoever has it open, also through another fid.
    assert_eq!(client.read(2, 5, 10), Ok(data[..10].to_vec()));
    let answer = client.ask(&Request::Getattr { fid: 3, mask: 0x7ff }).unwrap();
    assert!(matches!(answer.reply(), Reply::Getattr { links: 0, size: 600_000, .. }));
    client.clunk(2).unwrap();
    assert_eq!(client.read(2, 0, 1), Err(Errno::BADF));
    assert_eq!(client.ask(&Request::Getattr { fid: 3, mask: 0 }), Err(Errno::STALE));
    client.clunk(3).unwrap();
    assert_eq!(client.clunk(3), Err(Errno::BADF));
}

#[test]
fn walks_go_down_and_up_and_stay_inside() {
    let mut world = World::new(Access::ReadWrite);
    fs::create_dir_all(world.path("a/b/c")).unwrap();
    fs::write(world.path("a/b/c/file"), "text").unwrap();
    std::os::unix::fs::symlink("/etc", world.path("a/link")).unwrap();
    let client = &mut world.client;
    assert_eq!(client.walk(ROOT, 2, "a/b/c/file"), Ok(4));
    client.open(2, libc::O_RDONLY).unwrap();
    assert_eq!(client.read(2, 0, 10).unwrap(), b"text");
    assert_eq!(client.walk(ROOT, 3, "a/b/../../../.."), Ok(6));
    let root = client.ask(&Request::Getattr { fid: ROOT, mask: 0 }).unwrap().qid();
    assert_eq!(client.ask(&Request::Getattr { fid: 3, mask: 0 }).unwrap().qid().path, root.path);
    assert_eq!(client.walk(3, 4, "secret"), Err(Errno::NOENT));
    // As far as it goes, without a new fid.
    assert_eq!(client.walk(ROOT, 5, "a/b/none/c"), Ok(2));
    assert_eq!(client.clunk(5), Err(Errno::BADF));
    assert_eq!(client.walk(ROOT, 5, "a/link/passwd"), Ok(2));
    assert_eq!(client.walk(ROOT, 5, "a/link"), Ok(2));
    assert_eq!(client.walk(5, 6, "passwd"), Err(Errno::NOTDIR));
    let link = client.ask(&Request::Readlink { fid: 5 }).unwrap();
    assert_eq!(link.reply(), Reply::Readlink { target: text("/etc") });
    assert_eq!(client.open(5, libc::O_RDONLY), Err(Errno::LOOP));
    // In place of the fid itself; not of one that is taken, or open.
    assert_eq!(client.walk(3, 3, "a/b"), Ok(2));
    assert_eq!(client.walk(3, 2, "c"), Err(Errno::BADF));
    assert_eq!(client.walk(2, 2, ""), Err(Errno::BADF));
    assert_eq!(client.walk(99, 7, "c"), Err(Errno::BADF));
    // A copy of one that is open can be opened by itself.
    assert_eq!(client.walk(2, 7, ""), Ok(0));
    client.open(7, libc::O_RDWR).unwrap();
    client.write(7, 0, b"T").unwrap();
    assert_eq!(client.read(2, 0, 10).unwrap(), b"Text");
    for name in [".", "a/b", "", "x\0y"] {
        let names = Names::new(&[name.as_bytes()]).unwrap();
        let walk = Request::Walk { fid: ROOT, newfid: 9, names };
        assert!(client.ask(&walk).is_err(), "{name:?}");
    }
    let many = Names::new(&[b"..".as_slice(); MOST_NAMES]).unwrap();
    client.ask(&Request::Walk { fid: ROOT, newfid: 9, names: many }).unwrap();
}

#[test]
fn names_are_made_moved_and_removed() {
    let mut world = World::new(Access::ReadWrite);
    let path = |name: &str| world.path(name);
    let paths = ["d", "d/two", "l", "p", "d/three"].map(path);
    let client = &mut world.client;
    let directory = Request::Mkdir { fid: ROOT, name: text("d"), mode: 0o755, gid: 0 };
    assert_eq!(client.ask(&directory).unwrap().qid().kind, QidKind::DIRECTORY);
    assert_eq!(client.ask(&directory), Err(Errno::EXIST));
    assert_eq!(fs::metadata(&paths[0]).unwrap().permissions().mode() & 0o777, 0o755);
    client.walk(ROOT, 2, "d").unwrap();
    client.create(3, "file").unwrap();
    client.ask(&Request::Link { directory: 2, fid: 3, name: text("two") }).unwrap();
    assert_eq!(fs::metadata(&paths[1]).unwrap().nlink(), 2);
    let link = Request::Symlink { fid: ROOT, name: text("l"), target: text("d/two"), gid: 0 };
    assert_eq!(client.ask(&link).unwrap().qid().kind, QidKind::LINK);
    assert_eq!(fs::read_link(&paths[2]).unwrap().to_str(), Some("d/two"));
    let node = |kind, name| Request::Mknod {
        fid: ROOT,
        name: text(name),
        mode: kind | 0o600,
        major: 1,
        minor: 3,
        gid: 0,
    };
    client.ask(&node(libc::S_IFIFO, "p")).unwrap();
    assert!(fs::metadata(&paths[3]).is_ok());
    assert_eq!(client.ask(&node(libc::S_IFCHR, "c")), Err(Errno::PERM));
    assert_eq!(client.ask(&node(libc::S_IFBLK, "b")), Err(Errno::PERM));
    assert_eq!(client.ask(&node(libc::S_IFDIR, "d2")), Err(Errno::INVAL));

    // By directories and names, and by the file's own fid.
    let rename = Request::Renameat { from: ROOT, old: text("p"), to: 2, new: text("pipe") };
    client.ask(&rename).unwrap();
    assert_eq!(client.ask(&rename), Err(Errno::NOENT));
    client.walk(ROOT, 4, "d/pipe").unwrap();
    client.ask(&Request::Rename { fid: 4, directory: ROOT, name: text("q") }).unwrap();
    client.ask(&Request::Rename { fid: 4, directory: 2, name: text("r") }).unwrap();
    assert_eq!(client.walk(ROOT, 5, "d/r"), Ok(2));
    client.ask(&Request::Remove { fid: 5 }).unwrap();
    assert_eq!(client.clunk(5), Err(Errno::BADF));
    assert_eq!(client.ask(&Request::Remove { fid: 4 }), Err(Errno::STALE));
    assert_eq!(client.clunk(4), Err(Errno::BADF));
    assert_eq!(
        client.ask(&Request::Rename { fid: ROOT, directory: 2, name: text("x") }),
        Err(Errno::BUSY)
    );

    // A fid of one name does not mean the other.
    client.walk(ROOT, 6, "file").unwrap();
    client.walk(ROOT, 7, "d/two").unwrap();
    assert_eq!(client.ask(&Request::Remove { fid: 6 }), Err(Errno::STALE));
    client.ask(&Request::Remove { fid: 7 }).unwrap();
    assert!(!paths[1].exists());
    // A fid follows its file when a directory above moves.
    let three = Request::Mkdir { fid: 2, name: text("three"), mode: 0o700, gid: 0 };
    client.ask(&three).unwrap();
    client.walk(2, 8, "three").unwrap();
    let away = Request::Renameat { from: ROOT, old: text("d"), to: ROOT, new: text("e") };
    client.ask(&away).unwrap();
    client.open(8, libc::O_RDONLY).unwrap();
    assert_eq!(client.list(8, 4096).unwrap(), [".", ".."]);
    let remove = |name, flags| Request::Unlinkat { fid: 2, name: text(name), flags };
    assert_eq!(client.ask(&remove("three", 0)), Err(Errno::ISDIR));
    assert_eq!(client.ask(&remove("three", 0x100)), Err(Errno::INVAL));
    client.ask(&remove("three", 0x200)).unwrap();
    assert!(!paths[4].exists());
}

#[test]
fn attributes_are_seen_and_changed() {
    let mut world = World::new(Access::ReadWrite);
    fs::write(world.path("file"), "text").unwrap();
    let path = world.path("file");
    let client = &mut world.client;
    client.walk(ROOT, 2, "file").unwrap();
    let before = client.ask(&Request::Getattr { fid: 2, mask: 0x7ff }).unwrap();
    let Reply::Getattr { qid, uid, gid, size, mode, .. } = before.reply() else { unreachable!() };
    assert_eq!((uid, gid, size, mode & libc::S_IFMT), (0, 0, 4, libc::S_IFREG));
    assert_eq!(qid.path, fs::metadata(&path).unwrap().ino());
    // Mode, size and the time of the last write.
    client.ask(&setattr(2, 1 | 8 | 32 | 256)).unwrap();
    let status = fs::metadata(&path).unwrap();
    assert_eq!((status.permissions().mode() & 0o777, status.len()), (0o600, 3));
    assert_eq!((status.mtime(), status.mtime_nsec()), (77, 5));
    let after = client.ask(&Request::Getattr { fid: 2, mask: 0x7ff }).unwrap().qid();
    assert_ne!(after.version, qid.version);
    // The owner, which nobody may change.
    assert_eq!(client.ask(&setattr(2, 2)), Err(Errno::PERM));
    client.ask(&setattr(2, 16 | 32 | 64)).unwrap();
    assert!(fs::metadata(&path).unwrap().mtime() > 77);
    let room = client.ask(&Request::Statfs { fid: 2 }).unwrap();
    assert!(matches!(room.reply(), Reply::Statfs { kind: 0x0102_1997, blocks: 1.., .. }));
}

#[test]
fn directories_are_read_in_pieces() {
    let mut world = World::new(Access::ReadWrite);
    for number in 0..300 {
        fs::write(world.path(&format!("file-{number}")), "").unwrap();
    }
    let client = &mut world.client;
    client.walk(ROOT, 2, "").unwrap();
    assert_eq!(client.list(2, 4096), Err(Errno::BADF), "not open yet");
    assert_eq!(client.open(2, libc::O_RDWR), Err(Errno::ISDIR));
    client.open(2, libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
    for count in [100, 4096, u32::MAX] {
        assert_eq!(client.list(2, count).unwrap().len(), 302, "{count} bytes");
    }
    // Nothing would mean the end.
    assert_eq!(client.list(2, 20), Err(Errno::INVAL));
    assert_eq!(client.read(2, 0, 10), Err(Errno::ISDIR));
    assert_eq!(client.write(2, 0, b"x"), Err(Errno::ISDIR));
    client.walk(ROOT, 3, "file-1").unwrap();
    assert_eq!(client.open(3, libc::O_DIRECTORY), Err(Errno::NOTDIR));
    client.open(3, libc::O_RDONLY).unwrap();
    assert_eq!(client.list(3, 4096), Err(Errno::NOTDIR));
    assert_eq!(client.open(3, libc::O_RDONLY), Err(Errno::BADF));
    assert_eq!(client.write(3, 0, b"x"), Err(Errno::BADF));
}

#[test]
fn extended_attributes_are_kept() {
    let mut world = World::new(Access::ReadWrite);
    let client = &mut world.client;
    client.create(2, "file").unwrap();
    let set = |client: &mut Client, value: &[u8], size: u64, flags: i32| {
        client.walk(ROOT, 3, "file")?;
        let (name, flags) = (text("user.color"), flags as u32);
        let made = client.ask(&Request::Xattrcreate { fid: 3, name, size, flags }).map(drop);
        let written = made.and_then(|()| client.write(3, 0, value).map(drop));
        let ended = client.clunk(3);
        written.and(ended)
    };
    let get = |client: &mut Client, name: &str| {
        let size = client.ask(&Request::Xattrwalk { fid: 2, newfid: 4, name: text(name) })?;
        let Reply::Xattrwalk { size } = size.reply() else { unreachable!() };
        let value = client.read(4, 0, 4096)?;
        assert_eq!(value.len() as u64, size);
        assert_eq!(client.read(4, 1, 1)?, value[1..2]);
        assert_eq!(client.read(4, u64::MAX, 1)?, b"");
        client.clunk(4)?;
        Ok::<_, Errno>(value)
    };
    if set(client, b"red", 3, 0) == Err(Errno::OPNOTSUPP) {
        return;
    }
    assert_eq!(get(client, "user.color").unwrap(), b"red");
    assert_eq!(get(client, "").unwrap(), b"user.color\0");
    assert_eq!(set(client, b"blue", 4, libc::XATTR_CREATE), Err(Errno::EXIST));
    // Less than was announced, more, and much more.
    assert_eq!(set(client, b"blue", 5, 0), Err(Errno::INVAL));
    assert_eq!(set(client, b"blue", 3, 0), Err(Errno::NOSPC));
    assert_eq!(set(client, b"blue", 1 << 20, 0), Err(Errno::TOOBIG));
    assert_eq!(get(client, "user.color").unwrap(), b"red");
    assert_eq!(set(client, b"", 0, libc::XATTR_REPLACE), Ok(()));
    let gone = client.ask(&Request::Xattrwalk { fid: 2, newfid: 4, name: text("user.color") });
    assert_eq!(gone, Err(Errno::NODATA));
    let list = text("system.posix_acl_access");
    let hidden = client.ask(&Request::Xattrwalk { fid: 2, newfid: 4, name: list });
    assert_eq!(hidden, Err(Errno::OPNOTSUPP));
    // There are only so many at a time.
    let walks =
        (100..200).map(|newfid| client.ask(&Request::Xattrwalk { fid: 2, newfid, name: text("") }));
    let refused = walks.filter(|walk| *walk == Err(Errno::MFILE)).count();
    assert_eq!(refused, 100 - 64);
}

#[test]
fn locks_keep_others_out() {
    let mut world = World::new(Access::ReadWrite);
    let mut other = world.another();
    let client = &mut world.client;
    client.create(2, "file").unwrap();
    other.walk(ROOT, 2, "file").unwrap();
    other.open(2, libc::O_RDWR).unwrap();
    let lock = |kind, start, length| Request::Lock {
        fid: 2,
        kind,
        flags: 0,
        start,
        length,
        process: 1,
        client: text("host"),
    };
    let test = |kind, start, length| Request::Getlock {
        fid: 2,
        kind,
        start,
        length,
        process: 1,
        client: text("host"),
    };
    let locked = |answer: Result<Answer, Errno>| match answer.unwrap().reply() {
        Reply::Lock { status } => status == 0,
        reply => panic!("{reply:?}"),
    };
    let in_the_way = |answer: Result<Answer, Errno>| match answer.unwrap().reply() {
        Reply::Getlock { kind, start, length, .. } => (kind, start, length),
        reply => panic!("{reply:?}"),
    };
    assert!(locked(client.ask(&lock(1, 10, 10))));
    assert!(locked(client.ask(&lock(1, 10, 10))), "one's own is no hindrance");
    assert!(!locked(other.ask(&lock(0, 19, 1))));
    assert!(locked(other.ask(&lock(0, 20, 0))));
    assert_eq!(in_the_way(other.ask(&test(1, 0, 0))), (1, 10, 10));
    assert_eq!(in_the_way(client.ask(&test(0, 20, 0))), (2, 20, 0));
    assert!(locked(client.ask(&lock(2, 0, 0))));
    assert!(locked(other.ask(&lock(1, 0, 0))));
    assert!(!locked(client.ask(&lock(1, 0, 1))));
    // They go with the fid.
    other.clunk(2).unwrap();
    assert!(locked(client.ask(&lock(1, 0, 1))));
    assert_eq!(client.ask(&lock(3, 0, 1)), Err(Errno::INVAL));
    assert_eq!(client.ask(&lock(0, u64::MAX, 1)), Err(Errno::INVAL));
}

#[test]
fn sessions_begin_with_a_version_and_end_with_the_next() {
    let mut world = World::idle(Access::ReadWrite);
    let client = &mut world.client;
    assert_eq!(client.attach(ROOT), Err(Errno::PROTO));
    for version in ["9P2000", "9P2000.u", "9P2000.L2", ""] {
        let request = Request::Version { msize: 8192, version: text(version) };
        let answer = client.ask(&request).unwrap();
        let unknown = Reply::Version { msize: 8192, version: Text(UNKNOWN_VERSION) };
        assert_eq!(answer.reply(), unknown);
        assert_eq!(client.attach(ROOT), Err(Errno::PROTO));
    }
    let small = Request::Version { msize: 100, version: Text(VERSION) };
    assert_eq!(client.ask(&small), Err(Errno::INVAL));
    client.begin();
    client.create(2, "file").unwrap();
    client.begin();
    assert_eq!(client.read(2, 0, 1), Err(Errno::BADF));
    // One that authenticates, one that wants another tree, and one that is there already.
    let (user, tree) = (text("root"), text("/etc"));
    let auth = Request::Auth { afid: 5, user, tree, uid: 0 };
    assert_eq!(client.ask(&auth), Err(Errno::OPNOTSUPP));
    let attach = |afid, tree, fid| Request::Attach { fid, afid, user, tree, uid: 0 };
    assert_eq!(client.ask(&attach(5, text(""), 6)), Err(Errno::OPNOTSUPP));
    assert_eq!(client.ask(&attach(NO_FID, tree, 6)), Err(Errno::NOENT));
    assert_eq!(client.attach(ROOT), Err(Errno::BADF));
    client.attach(6).unwrap();
}
