//! A hostile driver: ways out of the directory in the words of FUSE, none of which leads there.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fileserver::Access;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, makedev, mknodat, renameat_with};
use tempfile::TempDir;
use zerocopy::{FromBytes, IntoBytes};

use super::super::protocol::*;
use super::super::*;
use super::bed::*;
use crate::virtio::control::{SharedDirectory, SharedFd};
use crate::virtio::test_bed::on_both;

/// A folder that nobody shares.
struct Outside(TempDir);

impl Outside {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        Self(folder)
    }

    fn assert_unharmed(&self) {
        assert_eq!(fs::read_to_string(self.0.path().join("secret")).unwrap(), "secret");
        assert_eq!(fs::read_dir(self.0.path()).unwrap().count(), 1);
    }

    /// Links that the host left in the directory, or that the driver made: both are the same.
    fn links(&self) -> Vec<(&'static str, std::path::PathBuf)> {
        vec![
            ("absolute", self.0.path().join("secret")),
            ("folder", self.0.path().into()),
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
}

fn create(flags: i32, name: &[u8]) -> Vec<u8> {
    let create = CreateIn { flags: flags as u32, mode: 0o666, umask: 0, open_flags: 0 };
    [create.as_bytes(), name].concat()
}

fn move_to_root(name: &[u8]) -> Vec<u8> {
    [RenameIn { to: 1 }.as_bytes(), name, &text("got")].concat()
}

fn device(name: &[u8]) -> Vec<u8> {
    let node = MknodIn { mode: libc::S_IFCHR | 0o666, rdev: 0x105, umask: 0, padding: 0 };
    [node.as_bytes(), name].concat()
}

fn folder(name: &[u8]) -> Vec<u8> {
    [MkdirIn { mode: 0o777, umask: 0 }.as_bytes(), name].concat()
}

/// All that can be tried with a name in a directory.
fn attempts(name: &[u8]) -> Vec<(Opcode, Vec<u8>)> {
    vec![
        (Opcode::Lookup, name.to_vec()),
        (Opcode::Mkdir, folder(name)),
        (Opcode::Mknod, device(name)),
        (Opcode::Unlink, name.to_vec()),
        (Opcode::Rmdir, name.to_vec()),
        (Opcode::Create, create(libc::O_RDWR, name)),
        (Opcode::Symlink, [name, b"x\0"].concat()),
        (Opcode::Rename, move_to_root(name)),
        (Opcode::Link, [LinkIn { node: 1 }.as_bytes(), name].concat()),
    ]
}

#[test]
fn no_link_leads_out() {
    on_both(|| async {
        let outside = Outside::new();
        let mut bed = FsBed::new(FsOptions::new("tag")).await;
        let mut refused = 0;
        for (link, target) in outside.links() {
            // Half of them are made by the driver.
            if refused % 2 == 0 {
                symlink(&target, bed.path(link)).unwrap();
            } else {
                let made = [text(link), text(target.to_str().unwrap())].concat();
                bed.ask(Opcode::Symlink, 1, &made, 128).await.unwrap();
            }
            let node = bed.look_up(1, link).await.unwrap().node;
            let flags = [0, libc::O_RDWR, libc::O_WRONLY | libc::O_TRUNC, libc::O_PATH];
            for flags in flags {
                assert!(bed.open(node, flags).await.is_err(), "{link}, {flags:o}");
                refused += 1;
            }
            let mut size = SetattrIn::read_from_bytes(&[0; 88]).unwrap();
            size.valid = SET_SIZE;
            let open = OpenIn { flags: 0, open_flags: 0 };
            let itself = [
                (Opcode::Opendir, open.as_bytes().to_vec()),
                (Opcode::Setattr, size.as_bytes().to_vec()),
            ];
            let below = ["secret", "etc", "0"].iter().flat_map(|name| attempts(&text(name)));
            for (opcode, arguments) in itself.into_iter().chain(below) {
                let answer = bed.ask(opcode, node, &arguments, 256).await;
                assert!(answer.is_err(), "{link}, {opcode:?}");
                refused += 1;
            }
            // Its name is not another's, and what has the name is the link.
            let over = create(libc::O_RDWR, &text(link));
            assert!(bed.ask(Opcode::Create, 1, &over, 256).await.is_err(), "{link}");
            let copy = text(&format!("copy-of-{link}"));
            let hard = [LinkIn { node }.as_bytes(), &copy].concat();
            let answer = bed.ask(Opcode::Link, 1, &hard, 128).await.unwrap();
            let entry = EntryOut::read_from_bytes(&answer).unwrap();
            assert_eq!(entry.attr.mode & libc::S_IFMT, libc::S_IFLNK);
            refused += 1;
        }
        assert!(refused >= 60, "{refused}");
        outside.assert_unharmed();
        bed.bed.finish().await;
    });
}

#[test]
fn no_name_leads_out() {
    on_both(|| async {
        let outside = Outside::new();
        let mut bed = FsBed::new(FsOptions::new("tag")).await;
        let secret = outside.0.path().join("secret");
        let names =
            ["", ".", "..", "../x", "../../etc", "/", secret.to_str().unwrap(), "a/../../x", "a/"];
        for name in names {
            for (opcode, arguments) in attempts(&text(name)) {
                let answer = bed.ask(opcode, 1, &arguments, 256).await;
                assert!(answer.is_err(), "{name:?}, {opcode:?}");
            }
        }
        // Device files are not made, whatever they are called.
        let answer = bed.ask(Opcode::Mknod, 1, &device(&text("zero")), 128).await;
        assert_eq!(answer, Err(Errno::PERM));
        // Those that are there are not opened; to make one takes a privilege.
        let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o666));
        if mknodat(CWD, bed.path("zero"), kind, mode, makedev(1, 5)).is_ok() {
            let node = bed.look_up(1, "zero").await.unwrap().node;
            assert_eq!(bed.open(node, libc::O_RDONLY).await, Err(Errno::NXIO));
        }
        outside.assert_unharmed();
        bed.bed.finish().await;
    });
}

#[test]
fn numbers_that_nobody_gave_are_refused() {
    on_both(|| async {
        let mut bed = FsBed::new(FsOptions::new("tag")).await;
        bed.place("file", "text");
        let node = bed.look_up(1, "file").await.unwrap().node;
        let handle = bed.open(node, libc::O_RDWR).await.unwrap();
        for number in [0, node + 1, node | 1 << 32, u64::MAX, 1 << 63] {
            let answer = bed.look_up(number, "file").await.map(drop);
            assert!(matches!(answer, Err(Errno::STALE | Errno::NOTDIR)), "{number}");
            assert_eq!(bed.open(number, 0).await, Err(Errno::STALE), "{number}");
        }
        for number in [handle + 1, handle | 1 << 32, u64::MAX, 1 << 63] {
            assert_eq!(bed.read(number, 0, 4).await, Err(Errno::BADF), "{number}");
            let write = [transfer(number, 0, 1).as_bytes(), b"x"].concat();
            let answer = bed.ask(Opcode::Write, node, &write, 8).await;
            assert_eq!(answer, Err(Errno::BADF), "{number}");
        }
        assert_eq!(bed.read(handle, 0, 10).await.unwrap(), b"text");
        bed.bed.finish().await;
    });
}

/// Whatever is there for a moment, a file that is read is one of the directory.
#[test]
fn races_with_links_are_not_won() {
    on_both(|| async {
        let outside = Outside::new();
        let mut bed = FsBed::new(FsOptions::new("tag")).await;
        fs::create_dir(bed.path("d")).unwrap();
        fs::write(bed.path("d/secret"), "inside").unwrap();
        bed.place("f", "inside");
        symlink(outside.0.path(), bed.path("d2")).unwrap();
        symlink(outside.0.path().join("secret"), bed.path("f2")).unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let (stop, shared) = (end.clone(), bed.path(""));
        let swapper = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for (one, two) in [("d", "d2"), ("f", "f2")] {
                    let (one, two) = (shared.join(one), shared.join(two));
                    renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE).unwrap();
                }
            }
        });
        let (mut read, mut rounds) = (0, 0);
        while rounds < 500 || read == 0 {
            rounds += 1;
            let parent = match bed.look_up(1, "d").await {
                Ok(entry) if rounds % 2 == 0 => entry.node,
                _ => 1,
            };
            let name = if parent == 1 { "f" } else { "secret" };
            let Ok(entry) = bed.look_up(parent, name).await else { continue };
            let Ok(handle) = bed.open(entry.node, libc::O_RDWR).await else { continue };
            assert_eq!(bed.read(handle, 0, 10).await.unwrap(), b"inside");
            read += 1;
            let release = ReleaseIn { handle, flags: 0, release_flags: 0, lock_owner: 0 };
            bed.ask(Opcode::Release, entry.node, release.as_bytes(), 0).await.unwrap();
        }
        end.store(true, Ordering::Relaxed);
        swapper.join().unwrap();
        outside.assert_unharmed();
        bed.bed.finish().await;
    });
}

#[test]
fn what_is_shared_no_more_is_stale_for_every_message() {
    on_both(|| async {
        let mut bed = FsBed::empty().await;
        fs::create_dir(bed.path("sub")).unwrap();
        bed.place("sub/file", "text");
        let share = |bed: &FsBed| {
            let directory = OwnedFd::from(fs::File::open(bed.path("")).unwrap());
            let directory = SharedFd::new(directory);
            let access = Access::ReadWrite;
            Change::Share(SharedDirectory { name: "one".into(), access, directory })
        };
        bed.bed.change(share(&bed)).await;
        let root = bed.look_up(1, "one").await.unwrap().node;
        let sub = bed.look_up(root, "sub").await.unwrap().node;
        let file = bed.look_up(sub, "file").await.unwrap().node;
        let handle = bed.open(file, libc::O_RDWR).await.unwrap();
        assert_eq!(bed.read(handle, 0, 4).await.unwrap(), b"text");
        bed.bed.change(Change::Unshare { name: "one".into() }).await;
        // The same directory once more is another one.
        bed.bed.change(share(&bed)).await;
        assert_eq!(bed.read(handle, 0, 4).await, Err(Errno::STALE));
        let write = [transfer(handle, 0, 1).as_bytes(), b"x"].concat();
        assert_eq!(bed.ask(Opcode::Write, file, &write, 8).await, Err(Errno::STALE));
        for flags in [0, libc::O_RDWR, libc::O_WRONLY | libc::O_TRUNC] {
            assert_eq!(bed.open(file, flags).await, Err(Errno::STALE));
        }
        let open = OpenIn { flags: 0, open_flags: 0 };
        let answer = bed.ask(Opcode::Opendir, sub, open.as_bytes(), 16).await;
        assert_eq!(answer, Err(Errno::STALE));
        for node in [root, sub] {
            for (opcode, arguments) in attempts(&text("file")) {
                let answer = bed.ask(opcode, node, &arguments, 256).await;
                let expected = match opcode {
                    Opcode::Mknod => Errno::PERM,
                    // From where nothing is shared any more, and to where nothing is made.
                    Opcode::Rename | Opcode::Link => answer.clone().unwrap_err(),
                    _ => Errno::STALE,
                };
                assert_eq!(answer, Err(expected), "{opcode:?}");
            }
        }
        assert_eq!(fs::read_to_string(bed.path("sub/file")).unwrap(), "text");
        assert_eq!(fs::read_dir(bed.path("sub")).unwrap().count(), 1);
        bed.bed.finish().await;
    });
}
