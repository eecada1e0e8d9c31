//! What programs want, in the words of FUSE.

use devices::virtio::fs::protocol::{
    CreateIn, Dirent, FsyncIn, InitIn, MkdirIn, Opcode, OpenIn, ReleaseIn, RenameIn, SET_SIZE,
    SetattrIn, TransferIn,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::files::{OUTSIDE, Op};

/// The node of the root.
pub(super) const ROOT: u64 = 1;
/// Most bytes of an answer behind its header.
pub(super) const ROOM: u32 = 0x300;

const READ_WRITE: u32 = 2;
const CREATE: u32 = 0o100;

/// A request: its kind, the node it is about, what is behind its header.
pub(super) type Words = (Opcode, u64, Vec<u8>);

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn transfer(handle: u64, offset: u64, size: u32) -> TransferIn {
    TransferIn { handle, offset, size, ..TransferIn::new_zeroed() }
}

pub(super) fn init() -> Words {
    let init = InitIn { major: 7, minor: 38, max_readahead: 1 << 17, flags: u32::MAX };
    (Opcode::Init, 0, init.as_bytes().to_vec())
}

/// `directory` is the name of the program's own, `node` what the request is about.
pub(super) fn of(op: &Op, directory: &str, node: u64) -> Words {
    let bytes = |bytes: &[u8]| bytes.to_vec();
    let (opcode, arguments) = match op {
        Op::MakeDirectory => {
            let mkdir = MkdirIn { mode: 0o755, umask: 0 };
            (Opcode::Mkdir, [mkdir.as_bytes(), &text(directory)].concat())
        }
        Op::FindDirectory => (Opcode::Lookup, text(directory)),
        Op::Create { name } => {
            let create =
                CreateIn { flags: READ_WRITE | CREATE, mode: 0o644, ..CreateIn::new_zeroed() };
            (Opcode::Create, [create.as_bytes(), &text(name)].concat())
        }
        Op::Find { name } => (Opcode::Lookup, text(name)),
        Op::FindOutside { name } => (Opcode::Lookup, text(name)),
        Op::Link { name } => (Opcode::Symlink, [text(name), text(OUTSIDE)].concat()),
        Op::ReadLink { .. } => (Opcode::Readlink, Vec::new()),
        Op::Open { .. } | Op::OpenLink { .. } => {
            (Opcode::Open, bytes(OpenIn { flags: READ_WRITE, open_flags: 0 }.as_bytes()))
        }
        Op::Read { handle, from, size, .. } => {
            (Opcode::Read, bytes(transfer(*handle, *from, *size).as_bytes()))
        }
        Op::Write { handle, from, byte, size, .. } => {
            let write = transfer(*handle, *from, *size);
            (Opcode::Write, [write.as_bytes(), &vec![*byte; *size as usize]].concat())
        }
        Op::Truncate { size, .. } => {
            let setattr = SetattrIn { valid: SET_SIZE, size: *size, ..SetattrIn::new_zeroed() };
            (Opcode::Setattr, bytes(setattr.as_bytes()))
        }
        Op::Sync { handle, .. } => {
            let sync = FsyncIn { handle: *handle, ..FsyncIn::new_zeroed() };
            (Opcode::Fsync, bytes(sync.as_bytes()))
        }
        Op::Close { handle, .. } | Op::CloseDirectory { handle } => {
            let release = ReleaseIn { handle: *handle, ..ReleaseIn::new_zeroed() };
            let of_file = matches!(op, Op::Close { .. });
            let opcode = if of_file { Opcode::Release } else { Opcode::Releasedir };
            (opcode, bytes(release.as_bytes()))
        }
        Op::Remove { name } => (Opcode::Unlink, text(name)),
        Op::Rename { from, to } => {
            let rename = RenameIn { to: node };
            (Opcode::Rename, [rename.as_bytes(), &text(from), &text(to)].concat())
        }
        Op::OpenDirectory => {
            (Opcode::Opendir, bytes(OpenIn { flags: 0, open_flags: 0 }.as_bytes()))
        }
        Op::List { handle } => (Opcode::Readdir, bytes(transfer(*handle, 0, ROOM).as_bytes())),
    };
    (opcode, node, arguments)
}

/// The names of an answer to [`Op::List`].
pub(super) fn names(mut bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while let Ok((entry, rest)) = Dirent::read_from_prefix(bytes) {
        let length = entry.name_length as usize;
        names.push(String::from_utf8_lossy(&rest[..length]).into_owned());
        let whole = (size_of::<Dirent>() + length).next_multiple_of(8);
        bytes = &bytes[whole.min(bytes.len())..];
    }
    names.retain(|name| name != "." && name != "..");
    names.sort_unstable();
    names
}
