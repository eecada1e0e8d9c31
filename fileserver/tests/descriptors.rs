//! A client that opens more than there are descriptors. A process of its own, since it has all of
//! them.

use std::fs;

use executor::{Config, Executor};
use fileserver::{
    Access, Creation, Errno, Grant, Ids, InodeId, Ledger, Name, OpenMode, Shape, Tree,
};
use rustix::process::{Resource, Rlimit, setrlimit};

const LIMIT: u64 = 300;
const SHAPE: Shape = Shape { places: 1, fids: 0 };

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

#[test]
fn when_descriptors_run_out_the_server_lives() {
    let limit = Rlimit { current: Some(LIMIT), maximum: Some(LIMIT) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for number in 0..200 {
        fs::create_dir_all(folder.path().join(format!("d{number}/e"))).unwrap();
        fs::write(folder.path().join(format!("d{number}/e/file")), "text").unwrap();
    }
    Executor::new(&Config::default()).unwrap().block_on(async {
        let memory = Ledger::create(SHAPE).unwrap();
        let directory = fs::File::open(folder.path()).unwrap().into();
        let root = Grant { directory, access: Access::ReadWrite };
        let ledger = Ledger::attach(&memory, SHAPE).unwrap();
        let mut tree = Tree::of_directory(root, Ids::Squashed, ledger).unwrap();
        let read = OpenMode::from_bits(0);
        let mut open = Vec::new();
        let mut refused = 0;
        // A hundred thousand times, and all directories can be looked into all the while.
        for number in 0..100_000 {
            let d = tree.look_up(InodeId::ROOT, &name(&format!("d{}", number / 500))).unwrap();
            let e = tree.look_up(d.inode, &name("e")).unwrap();
            let file = tree.look_up(e.inode, &name("file")).unwrap();
            match tree.open(file.inode, read) {
                Ok(opened) => open.push(opened.handle),
                Err(errno) => {
                    assert_eq!(errno, Errno::MFILE);
                    refused += 1;
                }
            }
            for inode in [d.inode, e.inode, file.inode] {
                tree.forget(inode, 1);
            }
        }
        assert!(open.len() > 200 && refused > 99_000, "{} were opened", open.len());
        let creation = Creation { mode: 0o600, ..Creation::default() };
        for handle in open {
            tree.close(handle).unwrap();
        }
        tree.create(InodeId::ROOT, &name("new"), read, &creation).unwrap();
    });
}
