use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::support::*;
use crate::*;

#[test]
fn what_is_made_is_there_and_goes_again() {
    on_thread(|| {
        let mut world = World::new(Access::ReadWrite);
        let (inode, handle) = world.create("file");
        let file = world.tree.file(handle).unwrap();
        rustix::io::pwrite(&file, b"hello", 0).unwrap();
        assert_eq!(fs::read(world.shared("file")).unwrap(), b"hello");
        assert_eq!(world.tree.attributes(inode, Some(handle)).unwrap().size, 5);
        assert_eq!(world.tree.attributes(inode, None).unwrap().mode & 0o7777, 0o644);
        world.tree.close(handle).unwrap();
        assert_eq!(world.tree.file(handle).unwrap_err(), Errno::BADF);

        let folder = world.tree.make_directory(ROOT, &name("d"), &creation(0o777)).unwrap();
        assert_eq!(folder.attributes.mode & 0o777, 0o755);
        world.tree.link(inode, folder.inode, &name("two")).unwrap();
        assert_eq!(fs::metadata(world.shared("d/two")).unwrap().nlink(), 2);
        world.tree.make_link(ROOT, &name("l"), c"d/two", &creation(0)).unwrap();
        let link = world.look_up("l").unwrap();
        assert_eq!(world.tree.read_link(link).unwrap(), b"d/two");
        world.tree.make_special(ROOT, &name("p"), Special::Fifo, &creation(0o600)).unwrap();
        assert_eq!(world.open("p", libc::O_RDONLY), Err(Errno::NXIO));
        assert_eq!(Special::from_mode(libc::S_IFBLK | 0o600), Err(Errno::PERM));

        assert_eq!(world.list(ROOT), [".", "..", "d", "file", "l", "p"]);
        assert_eq!(world.list(folder.inode), [".", "..", "two"]);
        world.tree.remove(ROOT, &name("file")).unwrap();
        assert_eq!(world.tree.remove_directory(ROOT, &name("d")), Err(Errno::NOTEMPTY));
        world.tree.remove(folder.inode, &name("two")).unwrap();
        world.tree.remove_directory(ROOT, &name("d")).unwrap();
        assert_eq!(world.look_up("d"), Err(Errno::NOENT));
        assert_eq!(world.tree.attributes(inode, None), Err(Errno::STALE));
    });
}

#[test]
fn attributes_change() {
    on_thread(|| {
        let mut world = World::new(Access::ReadWrite);
        let (inode, handle) = world.create("file");
        let at = Stamp::At(Time { seconds: 77, nanoseconds: 5 });
        let changes = Changes {
            mode: Some(0o751),
            size: Some(Size { bytes: 1000, handle: None, set_ids: SetIds::Keep }),
            modified: at,
            uid: Some(0),
            ..Changes::default()
        };
        let seen = world.tree.change(inode, &changes).unwrap();
        assert_eq!((seen.mode & 0o7777, seen.size, seen.modified.seconds), (0o751, 1000, 77));
        let status = fs::metadata(world.shared("file")).unwrap();
        assert_eq!((status.permissions().mode() & 0o7777, status.mtime_nsec()), (0o751, 5));
        let give = Changes { uid: Some(7), ..Changes::default() };
        assert_eq!(world.tree.change(inode, &give), Err(Errno::PERM));
        // Without a name it is still there for whoever has it open.
        world.tree.remove(ROOT, &name("file")).unwrap();
        let cut = Changes {
            size: Some(Size { bytes: 3, handle: Some(handle), set_ids: SetIds::Keep }),
            mode: Some(0o600),
            ..Changes::default()
        };
        let seen = world.tree.change(inode, &cut).unwrap();
        assert_eq!((seen.size, seen.links, seen.mode & 0o7777), (3, 0, 0o600));
        world.tree.close(handle).unwrap();
        assert_eq!(world.tree.attributes(inode, None), Err(Errno::STALE));
    });
}

#[test]
fn extended_attributes_are_kept() {
    on_thread(|| {
        let mut world = World::new(Access::ReadWrite);
        let (inode, handle) = world.create("file");
        let key = c"user.color";
        for inode in [inode, ROOT] {
            if world.tree.set_attribute(inode, key, b"red", Replace::Create)
                == Err(Errno::OPNOTSUPP)
            {
                return;
            }
            let set = world.tree.set_attribute(inode, key, b"blue", Replace::Create);
            assert_eq!(set, Err(Errno::EXIST));
            let mut value = [0; 10];
            assert_eq!(world.tree.attribute(inode, key, &mut []), Ok(3));
            assert_eq!(world.tree.attribute(inode, key, &mut value[..2]), Err(Errno::RANGE));
            assert_eq!(world.tree.attribute(inode, key, &mut value), Ok(3));
            assert_eq!(&value[..3], b"red");
            assert_eq!(world.tree.attribute_names(inode, &mut []), Ok(11));
        }
        world.tree.remove(ROOT, &name("file")).unwrap();
        assert_eq!(world.tree.remove_attribute(inode, key), Ok(()));
        assert_eq!(world.tree.attribute(inode, key, &mut []), Err(Errno::NODATA));
        world.tree.close(handle).unwrap();
    });
}

#[test]
fn directories_are_read_in_pieces() {
    on_thread(|| {
        let mut world = World::new(Access::ReadWrite);
        for number in 0..500 {
            fs::write(world.shared(&format!("file-{number}")), "").unwrap();
        }
        let handle = world.tree.open_directory(ROOT).unwrap();
        let mut all = Vec::new();
        let mut last = 0;
        loop {
            let mut names = Names { list: Vec::new(), most: 7, last };
            world.tree.read_directory(ROOT, handle, last, &mut names).unwrap();
            if names.list.is_empty() {
                break;
            }
            last = names.last;
            all.append(&mut names.list);
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 502);
    });
}

#[test]
fn renames_are_followed() {
    on_thread(|| {
        let mut world = World::new(Access::ReadWrite);
        let (one, handle) = world.create("one");
        world.tree.close(handle).unwrap();
        let folder = world.tree.make_directory(ROOT, &name("d"), &creation(0o755)).unwrap().inode;
        let (from, to) = (name("one"), name("two"));
        world.tree.rename((ROOT, &from), (folder, &to), Exchange::Replace).unwrap();
        world.tree.attributes(one, None).unwrap();
        world.tree.open(one, OpenMode::from_bits(0)).unwrap();
        // Of the directory above it, too, though nothing below was looked up again.
        world.tree.rename((ROOT, &name("d")), (ROOT, &name("e")), Exchange::Refuse).unwrap();
        world.tree.attributes(one, None).unwrap();
        let (other, _) = world.create("one");
        world.tree.rename((ROOT, &from), (folder, &to), Exchange::Swap).unwrap();
        assert_eq!(world.look_up("one"), Ok(one));
        assert_eq!(world.look_up("e/two"), Ok(other));
        world.tree.attributes(one, None).unwrap();
        let refused = world.tree.rename((ROOT, &from), (folder, &to), Exchange::Refuse);
        assert_eq!(refused, Err(Errno::EXIST));
        assert_eq!(Exchange::from_flags(libc::RENAME_WHITEOUT), Err(Errno::INVAL));
    });
}

#[test]
fn read_only_is_read_only_for_everything() {
    on_thread(|| {
        let mut world = World::new(Access::ReadOnly);
        fs::write(world.shared("file"), "text").unwrap();
        fs::create_dir(world.shared("d")).unwrap();
        let file = world.look_up("file").unwrap();
        let one = name("file");
        let new = name("new");
        let tree = &mut world.tree;
        let made = creation(0o777);
        let writing = [libc::O_WRONLY, libc::O_RDWR, libc::O_TRUNC, libc::O_RDWR | libc::O_APPEND];
        let mut results: Vec<Result<()>> = writing
            .iter()
            .map(|flags| tree.open(file, OpenMode::from_bits(*flags as u32)).map(drop))
            .collect();
        let rw = OpenMode::from_bits(libc::O_RDWR as u32);
        let size = Some(Size { bytes: 0, handle: None, set_ids: SetIds::Keep });
        results.extend([
            tree.create(ROOT, &new, rw, &made).map(drop),
            tree.create(ROOT, &one, OpenMode::from_bits(0), &made).map(drop),
            tree.create_nameless(ROOT, rw, &made).map(drop),
            tree.make_directory(ROOT, &new, &made).map(drop),
            tree.make_special(ROOT, &new, Special::File, &made).map(drop),
            tree.make_link(ROOT, &new, c"x", &made).map(drop),
            tree.link(file, ROOT, &new).map(drop),
            tree.remove(ROOT, &one),
            tree.remove_directory(ROOT, &name("d")),
            tree.rename((ROOT, &one), (ROOT, &new), Exchange::Replace),
            tree.change(file, &Changes { mode: Some(0), ..Changes::default() }).map(drop),
            tree.change(file, &Changes { uid: Some(0), ..Changes::default() }).map(drop),
            tree.change(file, &Changes { size, ..Changes::default() }).map(drop),
            tree.change(file, &Changes { accessed: Stamp::Now, ..Changes::default() }).map(drop),
            tree.set_attribute(file, c"user.a", b"", Replace::Either),
            tree.remove_attribute(file, c"user.a"),
        ]);
        for (index, result) in results.into_iter().enumerate() {
            assert_eq!(result, Err(Errno::ROFS), "number {index}");
        }
        let handle = tree.open(file, OpenMode::from_bits(0)).unwrap().handle;
        assert_eq!(tree.file_to_write(handle).unwrap_err(), Errno::ROFS);
        assert_eq!(tree.copy((handle, 0), (handle, 0), 1), Err(Errno::ROFS));
        assert_eq!(world.read(handle).unwrap(), "text");
    });
}

#[test]
fn grants_come_and_go() {
    on_thread(|| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "text").unwrap();
        let memory = Ledger::create(shape(1)).unwrap();
        let ledger = Ledger::attach(&memory, shape(1)).unwrap();
        let mut tree = Tree::of_grants(Ids::Squashed, ledger);
        assert_eq!(tree.look_up(ROOT, &name("a")).map(drop), Err(Errno::NOENT));
        let grant = |access| open_folder(folder.path(), access);
        let first = tree.grant(&name("a"), grant(Access::ReadWrite)).unwrap();
        assert_eq!(tree.grant(&name("a"), grant(Access::ReadOnly)), Err(Errno::EXIST));
        tree.grant(&name("b"), grant(Access::ReadOnly)).unwrap();
        let a = tree.look_up(ROOT, &name("a")).unwrap().inode;
        let b = tree.look_up(ROOT, &name("b")).unwrap().inode;
        assert_ne!(a, b, "the same directory under two grants is two");
        let file = tree.look_up(a, &name("file")).unwrap().inode;
        let read_only = tree.look_up(b, &name("file")).unwrap().inode;
        let rw = OpenMode::from_bits(libc::O_RDWR as u32);
        let handle = tree.open(file, rw).unwrap().handle;
        assert_eq!(tree.open(read_only, rw).map(drop), Err(Errno::ROFS));
        assert_eq!(tree.link(file, b, &name("x")).map(drop), Err(Errno::ROFS));
        assert_eq!(tree.make_directory(ROOT, &name("c"), &creation(0)).map(drop), Err(Errno::ROFS));
        let mut names = Names { list: Vec::new(), most: 9, last: 0 };
        let root = tree.open_directory(ROOT).unwrap();
        tree.read_directory(ROOT, root, 0, &mut names).unwrap();
        assert_eq!(names.list, [".", "..", "a", "b"]);

        tree.revoke(first);
        assert_eq!(tree.look_up(ROOT, &name("a")).map(drop), Err(Errno::NOENT));
        assert_eq!(tree.look_up(a, &name("file")).map(drop), Err(Errno::STALE));
        assert_eq!(tree.attributes(file, Some(handle)), Err(Errno::STALE));
        assert_eq!(tree.file(handle).map(drop), Err(Errno::STALE));
        assert_eq!(tree.open(file, rw).map(drop), Err(Errno::STALE));
        tree.attributes(read_only, None).unwrap();
        // Granted again it is another, and what was open stays stale.
        tree.grant(&name("a"), grant(Access::ReadWrite)).unwrap();
        assert_eq!(tree.file(handle).map(drop), Err(Errno::STALE));
        let again = tree.look_up(ROOT, &name("a")).unwrap().inode;
        assert_ne!(again, a);
        tree.close(handle).unwrap();
    });
}

#[test]
fn what_is_known_keeps_what_is_above_it() {
    on_thread(|| {
        let mut world = World::new(Access::ReadWrite);
        fs::create_dir_all(world.shared("a/b")).unwrap();
        fs::write(world.shared("a/b/file"), "text").unwrap();
        let a = world.look_up("a").unwrap();
        let b = world.tree.look_up(a, &name("b")).unwrap().inode;
        let file = world.tree.look_up(b, &name("file")).unwrap().inode;
        world.tree.forget(a, 1);
        world.tree.forget(b, 1);
        world.tree.inodes.distrust();
        world.tree.attributes(file, None).unwrap();
        assert_eq!(world.tree.whereabouts(file), Ok((b, name("file"))));
        assert_eq!(world.tree.look_up_parent(b).unwrap().inode, a);
        world.tree.forget(a, 1);
        // Also when it has moved elsewhere.
        world.tree.rename((b, &name("file")), (ROOT, &name("moved")), Exchange::Replace).unwrap();
        assert_eq!(world.tree.attributes(a, None), Err(Errno::STALE));
        assert_eq!(world.tree.whereabouts(file), Ok((ROOT, name("moved"))));
        world.tree.forget(file, 1);
        assert_eq!(world.tree.attributes(file, None), Err(Errno::STALE));
        assert_eq!(world.tree.whereabouts(ROOT), Err(Errno::BUSY));
    });
}

#[test]
fn trees_share_a_budget() {
    on_thread(|| {
        let mut world = World::new(Access::ReadWrite);
        fs::write(world.shared("file"), "").unwrap();
        let budget = Budget::default();
        world.tree.share_budget(&budget);
        let before = budget.clone();
        let file = world.look_up("file").unwrap();
        assert_ne!(format!("{budget:?}"), format!("{:?}", Budget::default()));
        world.tree.forget(file, 1);
        assert_eq!(format!("{before:?}"), format!("{:?}", Budget::default()));
        world.look_up("file").unwrap();
        drop(world);
        assert_eq!(format!("{before:?}"), format!("{:?}", Budget::default()));
    });
}
