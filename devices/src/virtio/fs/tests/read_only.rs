//! Whatever a driver asks for, what is shared read-only stays as it is.

use std::fs;
use std::os::unix::fs::MetadataExt;

use fileserver::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::super::protocol::*;
use super::super::*;
use super::bed::*;
use crate::virtio::test_bed::on_both;

/// What a message changes where that is allowed: its arguments, and whether it goes to the file or to the root.
/// None for those that change nothing.
fn change(opcode: Opcode, file: u64, handle: u64) -> Option<(u64, Vec<u8>)> {
    let new = text("new");
    let write_only = (libc::O_WRONLY | libc::O_TRUNC) as u32;
    Some(match opcode {
        Opcode::Setattr => {
            let mut arguments = SetattrIn::read_from_bytes(&[0; 88]).unwrap();
            (arguments.valid, arguments.mode) = (SET_MODE | SET_SIZE | SET_MTIME_NOW, 0o777);
            (file, arguments.as_bytes().to_vec())
        }
        Opcode::Symlink => (1, [&new[..], b"target\0"].concat()),
        Opcode::Mknod => {
            let arguments = MknodIn { mode: libc::S_IFREG | 0o600, rdev: 0, umask: 0, padding: 0 };
            (1, [arguments.as_bytes(), &new].concat())
        }
        Opcode::Mkdir => (1, [MkdirIn { mode: 0o700, umask: 0 }.as_bytes(), &new].concat()),
        Opcode::Unlink => (1, text("file")),
        Opcode::Rmdir => (1, text("folder")),
        Opcode::Rename => (1, [RenameIn { to: 1 }.as_bytes(), &text("file"), &new].concat()),
        Opcode::Rename2 => {
            let arguments = Rename2In { to: 1, flags: libc::RENAME_EXCHANGE, padding: 0 };
            (1, [arguments.as_bytes(), &text("file"), &text("folder")].concat())
        }
        Opcode::Link => (1, [LinkIn { node: file }.as_bytes(), &new].concat()),
        Opcode::Open => (file, OpenIn { flags: write_only, open_flags: 0 }.as_bytes().to_vec()),
        Opcode::Create | Opcode::Tmpfile => {
            let arguments = CreateIn { flags: write_only, mode: 0o600, umask: 0, open_flags: 0 };
            (1, [arguments.as_bytes(), &new].concat())
        }
        Opcode::Write => (file, [transfer(handle, 0, 1).as_bytes(), b"x"].concat()),
        Opcode::Setxattr => {
            let arguments = SetxattrIn { size: 1, flags: 0 };
            (file, [arguments.as_bytes(), &text("user.a"), b"x"].concat())
        }
        Opcode::Removexattr => (file, text("user.b")),
        Opcode::Fallocate => {
            let range = FallocateIn { handle, offset: 0, length: 9, mode: 0, padding: 0 };
            (file, range.as_bytes().to_vec())
        }
        Opcode::CopyFileRange => {
            let arguments = CopyIn {
                handle,
                offset: 0,
                to_node: file,
                to_handle: handle,
                to_offset: 9,
                length: 4,
                flags: 0,
            };
            (file, arguments.as_bytes().to_vec())
        }
        Opcode::Lookup
        | Opcode::Forget
        | Opcode::Getattr
        | Opcode::Readlink
        | Opcode::Read
        | Opcode::Statfs
        | Opcode::Release
        | Opcode::Fsync
        | Opcode::Getxattr
        | Opcode::Listxattr
        | Opcode::Init
        | Opcode::Opendir
        | Opcode::Readdir
        | Opcode::Releasedir
        | Opcode::Fsyncdir
        | Opcode::Interrupt
        | Opcode::Destroy
        | Opcode::BatchForget
        | Opcode::Readdirplus
        | Opcode::Lseek => return None,
    })
}

#[test]
fn read_only_is_read_only_for_every_message() {
    on_both(|| async {
        let options = FsOptions { read_only: true, ..FsOptions::new("tag") };
        let mut bed = FsBed::new(options).await;
        bed.place("file", "text");
        fs::create_dir(bed.path("folder")).unwrap();
        let as_it_was = |bed: &FsBed| {
            let seen = |name: &str| {
                let status = fs::metadata(bed.path(name)).unwrap();
                (status.mode(), status.len(), status.mtime_nsec(), status.ctime_nsec())
            };
            let names = fs::read_dir(bed.path("")).unwrap().count();
            (names, seen("file"), seen("folder"), seen(""))
        };
        let before = as_it_was(&bed);
        let file = bed.look_up(1, "file").await.unwrap().node;
        let handle = bed.open(file, libc::O_RDONLY).await.unwrap();
        let mut refused = 0;
        for opcode in Opcode::ALL {
            let Some((node, arguments)) = change(opcode, file, handle) else { continue };
            let answer = bed.ask(opcode, node, &arguments, 256).await;
            assert_eq!(answer, Err(Errno::ROFS), "{opcode:?}");
            refused += 1;
        }
        assert_eq!(refused, 17);
        // All others, with whatever they may mean.
        for opcode in Opcode::ALL {
            let silent = matches!(
                opcode,
                Opcode::Destroy
                    | Opcode::Init
                    | Opcode::Interrupt
                    | Opcode::Forget
                    | Opcode::BatchForget
            );
            if !silent && change(opcode, file, handle).is_none() {
                let _ = bed.ask(opcode, file, &[0; 64], 256).await;
            }
        }
        assert_eq!(as_it_was(&bed), before);
        let handle = bed.open(file, libc::O_RDONLY).await.unwrap();
        assert_eq!(bed.read(handle, 0, 10).await.unwrap(), b"text");
        bed.bed.finish().await;
    });
}
