//! 9P2000.L, the file protocol that Linux' `v9fs` speaks: its messages, and a server of it.
//!
//! ```text
//!   Unix socket, inherited descriptor ──► Connections ──┐
//!                                                       ├──► Session ──► fileserver::Tree
//!   virtio queue (devices::virtio::p9) ─────────────────┘       │
//!                                                               └── fids: what the client calls files
//! ```
//!
//! [`wire`] knows bytes and nothing of files. A [`Session`] is one client's: it carries requests out as
//! far as that needs no data, and says what is to be read, written or synced, so that whoever has the
//! data moves it without a copy.
//!
//! # Fids
//!
//! A fid holds an inode of the tree, and with it all directories above; walking asks for each name by
//! itself. So a fid follows its file through renames, costs no descriptor until it is opened, and finds
//! its file again after the server was replaced: fids are in the tree's ledger.
//!
//! # What is refused by name
//!
//! `Tauth` (`EOPNOTSUPP`: who can connect is settled outside of the protocol), device files (`EPERM`),
//! and all messages of the older dialects that 9P2000.L has others for (`EOPNOTSUPP`).

#![cfg_attr(not(test), forbid(unsafe_code))]

mod server;
pub mod wire;

pub use server::{
    Acl, Connections, Durability, MOST_MSIZE, Outcome, Serving, Session, SessionOptions, shape,
};

#[cfg(test)]
mod tests;
