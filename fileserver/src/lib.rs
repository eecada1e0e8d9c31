//! A server's view of directories of this host: the one core under every protocol that shares files.
//!
//! ```text
//!   virtio-fs ──┐                 ┌─ grants: directories that somebody opened, by name
//!               ├──► Tree ────────┼─ inodes: what a client knows, each reached by parent and name
//!   9P ─────────┘                 ├─ handles: open files and directories
//!                                 └─ ledger: all of that in memory that outlives the process
//! ```
//!
//! # What keeps a client inside
//!
//! The server holds descriptors of the granted directories and no path. A client names one thing at
//! a time: an inode that it knows and a [`Name`], which is neither `.` nor `..` and has no slash.
//! What a name means is asked without following it (`statx` with `AT_SYMLINK_NOFOLLOW`), and
//! whatever is opened goes through `openat2` with `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`,
//! `RESOLVE_NO_MAGICLINKS` and `RESOLVE_NO_XDEV`. So a symbolic link is text for the client to
//! resolve, and what is mounted below a granted directory is not part of it.
//!
//! Between two requests anything may have moved. Each inode has an [`Identity`]; what is found under
//! its name has to be the same file, else the answer is `ESTALE`, at which clients look anew.
//!
//! # Descriptors
//!
//! An inode costs none. Directories keep one while there are enough (`O_PATH`, for what is looked up
//! below them) and are opened again when they are needed. What a client has open costs one each, and
//! when there are no more the answer is `EMFILE`.
//!
//! Handles of `open_by_handle_at` would spare the names, but take a privilege over the whole file
//! system, which a server in a sandbox must not have.
//!
//! # What goes through the ring
//!
//! Data: [`Tree::file`] yields a file for the executor's reads, writes, syncs and allocations. What
//! is about names and attributes is done on the spot: `io_uring` hands each of these to a worker
//! thread, which costs several times what the call does.

mod attributes;
mod beneath;
mod create;
mod data;
mod descriptors;
mod directory;
mod grants;
mod handles;
mod identity;
mod ids;
mod inodes;
mod ledger;
mod locks;
mod name;
mod open;
mod reach;
mod remove;
mod tree;
mod words;
mod xattr;

pub use attributes::{Changes, SetIds, Size, Stamp};
pub use create::{Caller, Creation, Special};
pub use data::Whence;
pub use directory::{DirectoryEntry, Sink};
pub use grants::{Access, Grant, GrantId};
pub use handles::HandleId;
pub use identity::{Attributes, Identity, Time};
pub use ids::{IdMap, IdRange, Ids, NOBODY};
pub use inodes::{Budget, InodeId, MAX_INODES};
pub use ledger::{FidRecord, Journal, Ledger, LedgerError, Past, Shape};
pub use locks::{Lock, LockKind};
pub use name::{Name, NameError};
pub use open::{OpenMode, Opened};
pub use remove::Exchange;
pub use rustix::fs::{FileType, StatVfs};
pub use rustix::io::Errno;
pub use tree::{Entry, Tree};
pub use xattr::{MAX_VALUE, Replace};

/// What is answered: an error number is all that a client gets to see.
pub type Result<T, E = Errno> = std::result::Result<T, E>;

#[cfg(test)]
mod tests;
