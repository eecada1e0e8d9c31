//! A hostile client, which knows its way around: sixty and some ways out, none of which leads there.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::support::*;
use crate::*;

/// Links that the host left in the directory, or that the client made: both are the same.
fn links(world: &World) -> Vec<&'static str> {
    let outside = world.outside("");
    let table = [
        ("absolute", outside.join("secret")),
        ("relative", "../outside/secret".into()),
        ("folder", outside.clone()),
        ("folder-up", "../outside".into()),
        ("up", "..".into()),
        ("root", "/".into()),
        ("proc-root", "/proc/self/root".into()),
        ("proc-cwd", "/proc/self/cwd".into()),
        ("proc-fd", "/proc/self/fd".into()),
        ("proc-fd-0", "/proc/self/fd/0".into()),
        ("chain", "absolute".into()),
        ("loop", "loop".into()),
    ];
    for (name, target) in &table {
        symlink(target, world.shared(name)).unwrap();
    }
    table.map(|(name, _)| name).to_vec()
}

fn unharmed(world: &World) {
    assert_eq!(fs::read_to_string(world.outside("secret")).unwrap(), "secret");
    let names: Vec<_> = fs::read_dir(world.outside("")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn no_link_leads_out() {
    on_thread(|| {
        let mut world = World::new(Access::ReadWrite);
        let mut attempts = 0;
        for link in links(&world) {
            let node = world.look_up(link).unwrap();
            let flags =
                [0, libc::O_RDWR, libc::O_WRONLY | libc::O_TRUNC, libc::O_PATH, libc::O_DIRECTORY];
            let tree = &mut world.tree;
            let mut results: Vec<Result<()>> = Vec::new();
            for flags in flags {
                results.push(tree.open(node, OpenMode::from_bits(flags as u32)).map(drop));
            }
            results.push(tree.open_directory(node).map(drop));
            let size = Some(Size { bytes: 0, handle: None, set_ids: SetIds::Keep });
            results.push(tree.change(node, &Changes { size, ..Changes::default() }).map(drop));
            for below in ["secret", "outside", "etc", "0", "new"] {
                let below = name(below);
                results.push(tree.look_up(node, &below).map(drop));
                results.push(tree.make_directory(node, &below, &creation(0o777)).map(drop));
                results.push(tree.remove(node, &below));
                let rw = OpenMode::from_bits(libc::O_RDWR as u32);
                results.push(tree.create(node, &below, rw, &creation(0o777)).map(drop));
                results.push(tree.rename((node, &below), (ROOT, &name("got")), Exchange::Replace));
            }
            for (index, result) in results.into_iter().enumerate() {
                assert!(result.is_err(), "{link}, attempt {index}");
                attempts += 1;
            }
            // Times and modes are the link's own, if it has any.
            let changes = Changes { mode: Some(0o777), ..Changes::default() };
            let _ = world.tree.change(node, &changes);
            let stamp = Stamp::At(Time { seconds: 1, nanoseconds: 0 });
            let _ = world.tree.change(node, &Changes { modified: stamp, ..Changes::default() });
            let _ = world.tree.set_attribute(node, c"user.a", b"b", Replace::Either);
            // What is linked is the link.
            let copy = name(&format!("copy-of-{link}"));
            let entry = world.tree.link(node, ROOT, &copy).unwrap();
            assert_eq!(entry.attributes.kind(), FileType::Symlink);
            // What is made over it replaces it.
            let made =
                world.tree.create(ROOT, &name(link), OpenMode::from_bits(1), &creation(0o600));
            assert!(made.is_err(), "{link}");
        }
        assert!(attempts >= 60, "{attempts}");
        let modified = fs::metadata(world.outside("secret")).unwrap().modified().unwrap();
        assert!(modified.elapsed().unwrap().as_secs() < 1000, "times outside are as they were");
        unharmed(&world);
    });
}

#[test]
fn no_name_leads_out() {
    for text in [
        "",
        ".",
        "..",
        "../outside",
        "../../etc",
        "/",
        "/etc/passwd",
        "a/../../outside",
        "./x",
        "a/",
        "\0",
        "a\0/..",
    ] {
        assert!(Name::new(text.as_bytes()).is_err(), "{text:?}");
    }
    // These are names like others.
    for text in ["...", "..a", " ", "\\..\\", "%2e%2e", "\u{2215}", "..\u{200b}"] {
        assert!(Name::new(text.as_bytes()).is_ok(), "{text:?}");
    }
}

#[test]
fn numbers_that_nobody_gave_are_stale() {
    on_thread(|| {
        let mut world = World::new(Access::ReadWrite);
        let (file, handle) = world.create("file");
        for number in [0, 2 + file.0, file.0 | 1 << 32, u64::MAX, 1 << 32 | 1, 1 << 63] {
            let node = InodeId(number);
            assert_eq!(world.tree.attributes(node, Some(handle)), Err(Errno::STALE), "{number}");
            assert_eq!(world.tree.look_up(node, &name("x")).map(drop), Err(Errno::STALE));
            assert_eq!(world.tree.open(node, OpenMode::from_bits(0)).map(drop), Err(Errno::STALE));
            world.tree.forget(node, u64::MAX);
        }
        for number in [handle.0 + 1, handle.0 | 1 << 32, u64::MAX, 1 << 63] {
            assert_eq!(world.tree.file(HandleId(number)).map(drop), Err(Errno::BADF), "{number}");
        }
        // A handle is for its own inode.
        let listing = &mut Names { list: Vec::new(), most: 1, last: 0 };
        assert_eq!(world.tree.read_directory(ROOT, handle, 0, listing), Err(Errno::BADF));
        // Forgetting the root, and everything twice, harms nobody.
        world.tree.forget(ROOT, u64::MAX);
        world.tree.forget(file, u64::MAX);
        world.tree.forget(file, u64::MAX);
        world.tree.close(handle).unwrap();
        assert_eq!(world.tree.close(handle), Err(Errno::BADF));
        world.look_up("file").unwrap();
    });
}

/// Whatever is there for a moment, a file that is read is one of the directory.
#[test]
fn races_with_links_are_not_won() {
    on_thread(|| {
        let mut world = World::new(Access::ReadWrite);
        fs::create_dir(world.shared("d")).unwrap();
        fs::write(world.shared("d/secret"), "inside").unwrap();
        fs::write(world.shared("f"), "inside").unwrap();
        symlink(world.outside(""), world.shared("d2")).unwrap();
        symlink(world.outside("secret"), world.shared("f2")).unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let (stop, shared) = (end.clone(), world.shared(""));
        let swapper = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for (one, two) in [("d", "d2"), ("f", "f2")] {
                    let (one, two) = (shared.join(one), shared.join(two));
                    renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE).unwrap();
                }
            }
        });
        let mut read = 0;
        for round in 0..3000 {
            world.tree.inodes.distrust();
            let path = if round % 2 == 0 { "d/secret" } else { "f" };
            if let Ok(handle) = world.open(path, libc::O_RDWR) {
                assert_eq!(world.read(handle).unwrap(), "inside");
                world.tree.close(handle).unwrap();
                read += 1;
            }
            if let Ok(node) = world.look_up("f") {
                let changes =
                    Changes { mode: Some(0o600), modified: Stamp::Now, ..Changes::default() };
                let _ = world.tree.change(node, &changes);
            }
        }
        end.store(true, Ordering::Relaxed);
        swapper.join().unwrap();
        assert!(read > 0, "some attempts found a file");
        unharmed(&world);
    });
}

#[test]
fn what_leaves_the_directory_is_gone() {
    on_thread(|| {
        let mut world = World::new(Access::ReadWrite);
        fs::create_dir_all(world.shared("d/e")).unwrap();
        fs::write(world.shared("d/e/file"), "text").unwrap();
        let [d, e, file] = ["d", "d/e", "d/e/file"].map(|path| world.look_up(path).unwrap());
        world.tree.attributes(file, None).unwrap();
        fs::rename(world.shared("d"), world.outside("d")).unwrap();
        world.tree.inodes.distrust();
        for inode in [d, e, file] {
            assert_eq!(world.tree.attributes(inode, None), Err(Errno::STALE));
        }
        assert_eq!(world.tree.look_up(e, &name("file")).map(drop), Err(Errno::STALE));
        assert_eq!(world.tree.open(file, OpenMode::from_bits(0)).map(drop), Err(Errno::STALE));
        let made = world.tree.make_directory(e, &name("new"), &creation(0o777));
        assert_eq!(made.map(drop), Err(Errno::STALE));
        // Back again it is what it was.
        fs::rename(world.outside("d"), world.shared("d")).unwrap();
        world.tree.attributes(file, None).unwrap();
        // A link in its place is not.
        fs::rename(world.shared("d"), world.outside("d")).unwrap();
        symlink(world.outside("d"), world.shared("d")).unwrap();
        world.tree.inodes.distrust();
        assert_eq!(world.tree.attributes(file, None), Err(Errno::STALE));
        fs::remove_file(world.shared("d")).unwrap();
        fs::rename(world.outside("d"), world.shared("d")).unwrap();
        unharmed(&world);
    });
}

/// Needs a privilege; without it there are no such files either.
#[test]
fn device_files_are_not_opened() {
    on_thread(|| {
        let mut world = World::new(Access::ReadWrite);
        let kind = rustix::fs::FileType::CharacterDevice;
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let zero = rustix::fs::makedev(1, 5);
        if rustix::fs::mknodat(CWD, world.shared("zero"), kind, mode, zero).is_err() {
            return println!("skipped: this user cannot make device files");
        }
        for flags in [0, libc::O_RDWR, libc::O_WRONLY | libc::O_TRUNC] {
            assert_eq!(world.open("zero", flags), Err(Errno::NXIO));
        }
        let rw = OpenMode::from_bits(libc::O_RDWR as u32);
        let created = world.tree.create(ROOT, &name("zero"), rw, &creation(0o600));
        assert_eq!(created.map(drop), Err(Errno::NXIO));
    });
}

#[test]
fn what_was_known_before_its_grant_ended_is_stale() {
    on_thread(|| {
        let world = World::new(Access::ReadWrite);
        fs::create_dir(world.shared("folder")).unwrap();
        fs::write(world.shared("folder/file"), "text").unwrap();
        let ledger = Ledger::attach(&world.memory, shape(8)).unwrap();
        let mut tree = Tree::of_grants(Ids::Squashed, ledger);
        let one = || open_folder(world.shared(""), Access::ReadWrite);
        let grant = tree.grant(&name("one"), one()).unwrap();
        assert_eq!(tree.grant(&name("one"), one()), Ok(grant), "the same once more");
        assert_eq!(
            tree.grant(&name("one"), open_folder(world.outside(""), Access::ReadWrite)),
            Err(Errno::EXIST)
        );
        let root = tree.look_up(ROOT, &name("one")).unwrap().inode;
        let folder = tree.look_up(root, &name("folder")).unwrap().inode;
        let file = tree.look_up(folder, &name("file")).unwrap().inode;
        let read = tree.open(file, OpenMode::from_bits(0)).unwrap().handle;
        let write = tree.open(file, OpenMode::from_bits(libc::O_RDWR as u32)).unwrap().handle;
        let listing = tree.open_directory(folder).unwrap();
        tree.revoke(grant);
        // A new one of the same name and place is another.
        let again = tree.grant(&name("one"), one()).unwrap();
        assert_ne!(again, grant);
        let (rw, new) = (OpenMode::from_bits(libc::O_RDWR as u32), creation(0o600));
        let mut names = Names { list: Vec::new(), most: 9, last: 0 };
        let lock = Lock { kind: LockKind::Exclusive, start: 0, length: 0 };
        let results = [
            tree.file(read).map(drop),
            tree.file_to_write(write).map(drop),
            tree.seek(read, 0, Whence::Data).map(drop),
            tree.copy((read, 0), (write, 0), 9).map(drop),
            tree.lock(write, lock),
            tree.read_directory(folder, listing, 0, &mut names),
            tree.look_up(root, &name("folder")).map(drop),
            tree.look_up(folder, &name("file")).map(drop),
            tree.attributes(file, Some(read)).map(drop),
            tree.attributes(folder, None).map(drop),
            tree.change(file, &Changes { mode: Some(0o777), ..Changes::default() }).map(drop),
            tree.open(file, rw).map(drop),
            tree.open_directory(folder).map(drop),
            tree.create(folder, &name("new"), rw, &new).map(drop),
            tree.make_directory(folder, &name("new"), &new).map(drop),
            tree.remove(folder, &name("file")),
            tree.rename((folder, &name("file")), (root, &name("file")), Exchange::Replace),
            tree.link(file, root, &name("new")).map(drop),
            tree.attribute(file, c"user.a", &mut []).map(drop),
            tree.set_attribute(file, c"user.a", b"b", Replace::Either),
            tree.statistics(folder).map(drop),
        ];
        for (index, result) in results.into_iter().enumerate() {
            assert_eq!(result, Err(Errno::STALE), "attempt {index}");
        }
        assert_eq!(fs::read_to_string(world.shared("folder/file")).unwrap(), "text");
        // From what is shared now to what was not, nothing is moved.
        let root = tree.look_up(ROOT, &name("one")).unwrap().inode;
        let moved = tree.rename((root, &name("folder")), (folder, &name("x")), Exchange::Replace);
        assert!(moved.is_err());
    });
}
