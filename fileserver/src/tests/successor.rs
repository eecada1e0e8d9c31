use std::fs;

use super::support::*;
use crate::*;

#[test]
fn a_successor_goes_on_with_inodes_and_handles() {
    on_thread(|| {
        let mut world = World::new(Access::ReadWrite);
        let d = world.tree.make_directory(ROOT, &name("d"), &creation(0o755)).unwrap().inode;
        let e = world.tree.make_directory(d, &name("e"), &creation(0o755)).unwrap().inode;
        fs::write(world.shared("d/e/file"), "text").unwrap();
        let file = world.look_up("d/e/file").unwrap();
        let handle =
            world.tree.open(file, OpenMode::from_bits(libc::O_RDWR as u32)).unwrap().handle;
        let (gone, gone_handle) = world.create("gone");
        world.tree.remove(ROOT, &name("gone")).unwrap();
        world.succeed();
        // Nobody looks anything up again.
        assert_eq!(world.read(handle).unwrap(), "text");
        assert_eq!(world.tree.attributes(file, None).unwrap().size, 4);
        assert_eq!(world.list(e), [".", "..", "file"]);
        assert_eq!(world.tree.attributes(gone, Some(gone_handle)), Err(Errno::STALE));
        assert_eq!(world.tree.file(gone_handle).map(drop), Err(Errno::STALE));
        world.tree.close(gone_handle).unwrap();
        world.tree.close(handle).unwrap();
        assert_eq!(world.look_up("d/e/file"), Ok(file));
        // Look-ups are still counted, and numbers are not used twice.
        world.tree.forget(file, 2);
        assert_eq!(world.tree.attributes(file, None), Err(Errno::STALE));
        assert_ne!(world.look_up("d/e/file"), Ok(file));
        // Another file of the same name is not that file.
        let file = world.look_up("d/e/file").unwrap();
        fs::remove_file(world.shared("d/e/file")).unwrap();
        fs::write(world.shared("d/e/other"), "").unwrap();
        fs::write(world.shared("d/e/file"), "").unwrap();
        world.succeed();
        assert_eq!(world.tree.attributes(file, None), Err(Errno::STALE));
        world.tree.forget_all();
        assert_eq!(world.tree.attributes(d, None), Err(Errno::STALE));
        world.succeed();
        assert_eq!(world.tree.attributes(d, None), Err(Errno::STALE));
    });
}

#[test]
fn what_was_open_outlives_its_name_in_a_successor() {
    on_thread(|| {
        let mut world = World::new(Access::ReadWrite);
        let (_, removed) = world.create("removed");
        let (_, replaced) = world.create("replaced");
        fs::write(world.shared("removed"), "one").unwrap();
        fs::write(world.shared("replaced"), "two").unwrap();
        fs::write(world.shared("new"), "three").unwrap();
        world.succeed();
        // Nobody has used the handles since.
        world.tree.remove(ROOT, &name("removed")).unwrap();
        let (new, old) = (name("new"), name("replaced"));
        world.tree.rename((ROOT, &new), (ROOT, &old), Exchange::Replace).unwrap();
        assert_eq!(world.read(removed).unwrap(), "one");
        assert_eq!(world.read(replaced).unwrap(), "two");
    });
}

#[test]
fn a_journal_tells_what_was_done() {
    let memory = Ledger::create(shape(2)).unwrap();
    let ledger = Ledger::attach(&memory, shape(2)).unwrap();
    let journal = ledger.journal(1);
    assert_eq!(journal.past(5), Past::Nothing);
    journal.begin(5);
    assert_eq!((journal.past(5), journal.past(6)), (Past::Begun, Past::Nothing));
    journal.done(2, b"answer 1");
    let again = Ledger::attach(&memory, shape(2)).unwrap();
    assert_eq!(again.journal(1).past(5), Past::Done((2, b"answer 1".to_vec())));
    assert_eq!(again.journal(0).past(5), Past::Nothing);
    again.journal(1).begin(7);
    assert_eq!(journal.past(5), Past::Nothing);
    journal.done(0, &[0; 1000]);
    assert_eq!(journal.past(7), Past::Begun, "an answer too long to keep");
    assert!(matches!(Ledger::attach(&memory, shape(3)), Err(LedgerError::Mismatch { .. })));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn a_hostile_ledger_harms_nobody(
        writes in proptest::collection::vec((0u64..600, proptest::prelude::any::<u64>()), 0..200),
        small: bool,
    ) {
        on_thread(move || {
            let mut world = World::new(Access::ReadWrite);
            let d = world.tree.make_directory(ROOT, &name("d"), &creation(0o755)).unwrap().inode;
            let (file, handle) = world.create("file");
            // Header and journal, the first handles, the first inodes.
            let starts = [2, 16 + 8 * 32, 16 + 8 * 32 + crate::handles::MAX_HANDLES as u64 * 4];
            for (at, word) in writes {
                let word = if small { word % 5 } else { word };
                let at = starts[at as usize % 3] + at / 3;
                rustix::io::pwrite(&world.memory, &word.to_ne_bytes(), at * 8).unwrap();
            }
            world.succeed();
            for inode in [ROOT, d, file, InodeId(2), InodeId(3), InodeId(0), InodeId(u64::MAX)] {
                let _ = world.tree.attributes(inode, Some(handle));
                let _ = world.tree.look_up(inode, &name("secret"));
                let _ = world.tree.open(inode, OpenMode::from_bits(0));
                let _ = world.tree.open_directory(inode);
                world.tree.forget(inode, 1);
            }
            let _ = world.tree.file(handle);
            let _ = world.tree.close(handle);
            world.tree.forget_all();
            assert_eq!(world.tree.look_up(ROOT, &name("file")).unwrap().attributes.links, 1);
        });
    }
}
