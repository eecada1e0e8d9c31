//! The messages of FUSE (linux/fuse.h, version 7.38) that travel over virtio-fs (virtio 1.3 section
//! 5.11).
#![allow(missing_docs, reason = "words and fields are those of linux/fuse.h")]

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Virtio device type of a file system.
pub const DEVICE_TYPE: u16 = 26;

pub const MAJOR: u32 = 7;
/// The version that answers are written in.
pub const MINOR: u32 = 38;
/// The oldest that is spoken: readdirplus, writeback and 64-byte answers to `INIT` are there.
pub const LEAST_MINOR: u32 = 31;

/// What the driver asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Opcode {
    Lookup = 1,
    Forget = 2,
    Getattr = 3,
    Setattr = 4,
    Readlink = 5,
    Symlink = 6,
    Mknod = 8,
    Mkdir = 9,
    Unlink = 10,
    Rmdir = 11,
    Rename = 12,
    Link = 13,
    Open = 14,
    Read = 15,
    Write = 16,
    Statfs = 17,
    Release = 18,
    Fsync = 20,
    Setxattr = 21,
    Getxattr = 22,
    Listxattr = 23,
    Removexattr = 24,
    Init = 26,
    Opendir = 27,
    Readdir = 28,
    Releasedir = 29,
    Fsyncdir = 30,
    Create = 35,
    Interrupt = 36,
    Destroy = 38,
    BatchForget = 42,
    Fallocate = 43,
    Readdirplus = 44,
    Rename2 = 45,
    Lseek = 46,
    CopyFileRange = 47,
    Tmpfile = 51,
}

impl Opcode {
    /// All that this server knows.
    pub const ALL: [Self; 37] = [
        Self::Lookup,
        Self::Forget,
        Self::Getattr,
        Self::Setattr,
        Self::Readlink,
        Self::Symlink,
        Self::Mknod,
        Self::Mkdir,
        Self::Unlink,
        Self::Rmdir,
        Self::Rename,
        Self::Link,
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Statfs,
        Self::Release,
        Self::Fsync,
        Self::Setxattr,
        Self::Getxattr,
        Self::Listxattr,
        Self::Removexattr,
        Self::Init,
        Self::Opendir,
        Self::Readdir,
        Self::Releasedir,
        Self::Fsyncdir,
        Self::Create,
        Self::Interrupt,
        Self::Destroy,
        Self::BatchForget,
        Self::Fallocate,
        Self::Readdirplus,
        Self::Rename2,
        Self::Lseek,
        Self::CopyFileRange,
        Self::Tmpfile,
    ];

    /// None for what this server answers with `ENOSYS`: locks, which the driver then keeps itself,
    /// `FLUSH`, `ACCESS`, `BMAP`, `IOCTL`, `POLL`, `SYNCFS`, `STATX`, and what is newer.
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|opcode| *opcode as u32 == raw)
    }
}

bitflags! {
    /// What both sides of a session can.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct InitFlags: u64 {
        const ASYNC_READ = 1 << 0;
        const ATOMIC_O_TRUNC = 1 << 3;
        const BIG_WRITES = 1 << 5;
        const DONT_MASK = 1 << 6;
        const AUTO_INVAL_DATA = 1 << 12;
        const DO_READDIRPLUS = 1 << 13;
        const READDIRPLUS_AUTO = 1 << 14;
        const ASYNC_DIO = 1 << 15;
        const WRITEBACK_CACHE = 1 << 16;
        const PARALLEL_DIROPS = 1 << 18;
        const POSIX_ACL = 1 << 20;
        const MAX_PAGES = 1 << 22;
        const CACHE_SYMLINKS = 1 << 23;
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        const INIT_EXT = 1 << 30;
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
    }
}

/// `FOPEN_*`: what the driver does with an open file.
pub const OPEN_DIRECT_IO: u32 = 1 << 0;
pub const OPEN_KEEP_CACHE: u32 = 1 << 1;
pub const OPEN_CACHE_DIR: u32 = 1 << 3;

/// `FUSE_GETATTR_FH`
pub const GETATTR_HANDLE: u32 = 1 << 0;
/// `FUSE_FSYNC_FDATASYNC`
pub const FSYNC_DATA: u32 = 1 << 0;

/// `FATTR_*`: which fields of a `SETATTR` count.
pub const SET_MODE: u32 = 1 << 0;
pub const SET_UID: u32 = 1 << 1;
pub const SET_GID: u32 = 1 << 2;
pub const SET_SIZE: u32 = 1 << 3;
pub const SET_ATIME: u32 = 1 << 4;
pub const SET_MTIME: u32 = 1 << 5;
pub const SET_HANDLE: u32 = 1 << 6;
pub const SET_ATIME_NOW: u32 = 1 << 7;
pub const SET_MTIME_NOW: u32 = 1 << 8;
/// `FATTR_KILL_SUIDGID`
pub const SET_KILL: u32 = 1 << 11;
/// `FUSE_OPEN_KILL_SUIDGID`
pub const OPEN_KILL: u32 = 1 << 0;
/// `FUSE_WRITE_KILL_SUIDGID`
pub const WRITE_KILL: u32 = 1 << 2;

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
            #[repr(C)]
            pub struct $name { $(pub $field: $kind),* }
        )*
    };
}

messages! {
    /// Before every request.
    InHeader {
        length: u32, opcode: u32, unique: u64, node: u64, uid: u32, gid: u32, pid: u32,
        extensions: u16, padding: u16,
    }
    /// Before every answer.
    OutHeader { length: u32, error: i32, unique: u64 }
    Attr {
        inode: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atime_nsec: u32, mtime_nsec: u32, ctime_nsec: u32,
        mode: u32, links: u32, uid: u32, gid: u32, rdev: u32, block_size: u32, flags: u32,
    }
    EntryOut {
        node: u64, generation: u64, entry_valid: u64, attr_valid: u64,
        entry_valid_nsec: u32, attr_valid_nsec: u32, attr: Attr,
    }
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, padding: u32, attr: Attr }
    /// What drivers of all versions send; newer ones more.
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32 }
    /// The rest of a newer driver's.
    InitInMore { flags2: u32, unused: [u32; 11] }
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16,
        congestion_threshold: u16, max_write: u32, time_granularity: u32, max_pages: u16,
        map_alignment: u16, flags2: u32, max_stack_depth: u32, unused: [u32; 6],
    }
    GetattrIn { flags: u32, padding: u32, handle: u64 }
    SetattrIn {
        valid: u32, padding: u32, handle: u64, size: u64, lock_owner: u64,
        atime: u64, mtime: u64, ctime: u64, atime_nsec: u32, mtime_nsec: u32, ctime_nsec: u32,
        mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    OpenIn { flags: u32, open_flags: u32 }
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    OpenOut { handle: u64, open_flags: u32, padding: u32 }
    ReleaseIn { handle: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    /// Of reads and writes.
    TransferIn {
        handle: u64, offset: u64, size: u32, transfer_flags: u32, lock_owner: u64, flags: u32,
        padding: u32,
    }
    WriteOut { size: u32, padding: u32 }
    StatfsOut {
        blocks: u64, free: u64, available: u64, files: u64, free_files: u64, block_size: u32,
        name_length: u32, fragment_size: u32, padding: u32, spare: [u32; 6],
    }
    FsyncIn { handle: u64, flags: u32, padding: u32 }
    SetxattrIn { size: u32, flags: u32 }
    GetxattrIn { size: u32, padding: u32 }
    GetxattrOut { size: u32, padding: u32 }
    MkdirIn { mode: u32, umask: u32 }
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32 }
    RenameIn { to: u64 }
    Rename2In { to: u64, flags: u32, padding: u32 }
    LinkIn { node: u64 }
    ForgetIn { lookups: u64 }
    BatchForgetIn { count: u32, padding: u32 }
    ForgetOne { node: u64, lookups: u64 }
    FallocateIn { handle: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    LseekIn { handle: u64, offset: u64, whence: u32, padding: u32 }
    LseekOut { offset: u64 }
    CopyIn {
        handle: u64, offset: u64, to_node: u64, to_handle: u64, to_offset: u64, length: u64,
        flags: u64,
    }
    /// Before the name of an entry of a directory.
    Dirent { inode: u64, next: u64, name_length: u32, kind: u32 }
}

const _: () = assert!(size_of::<InHeader>() == 40 && size_of::<Attr>() == 88);
const _: () = assert!(size_of::<EntryOut>() == 128 && size_of::<InitOut>() == 64);
const _: () = assert!(size_of::<SetattrIn>() == 88 && size_of::<TransferIn>() == 40);
const _: () = assert!(size_of::<StatfsOut>() == 80 && size_of::<CopyIn>() == 56);
