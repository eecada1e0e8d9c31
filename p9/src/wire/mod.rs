//! Messages as bytes, both ways.
//!
//! ```text
//!   +---------+---------+--------+----------------------+
//!   | size[4] | type[1] | tag[2] | fields of the type   |   little-endian; size counts itself
//!   +---------+---------+--------+----------------------+
//! ```
//!
//! Texts are a length of two bytes and so many bytes; data is a length of four. Nothing is copied:
//! a message borrows the bytes that it was read from.

mod field;
mod message;

pub use field::{Names, Qid, QidKind, Qids, Text};
pub use message::{Reply, Request};

/// Size, type and tag.
pub const HEADER_BYTES: usize = 7;
/// What lies before the data of an answer to a read: a header and a length.
pub const READ_HEADER_BYTES: usize = HEADER_BYTES + 4;
/// What lies before the data of a write: a header, fid, offset and length.
pub const WRITE_HEADER_BYTES: usize = HEADER_BYTES + 16;
/// The name of this dialect.
pub const VERSION: &[u8] = b"9P2000.L";
/// What a server calls a dialect that it does not speak.
pub const UNKNOWN_VERSION: &[u8] = b"unknown";
/// No fid: a client that does not authenticate itself.
pub const NO_FID: u32 = u32::MAX;
/// No user: a client that gives a name instead.
pub const NO_UID: u32 = u32::MAX;
/// The most names of one walk.
pub const MOST_NAMES: usize = 16;

/// The type of an answer that is an error (`Rlerror`).
pub const ERROR: u8 = 7;

/// What every message begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole message.
    pub size: u32,
    /// What kind of message it is.
    pub kind: u8,
    /// The client's number for the request.
    pub tag: u16,
}

impl Header {
    /// Reads the first bytes of a message.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [size @ .., kind, low, high] = *bytes;
        Self { size: u32::from_le_bytes(size), kind, tag: u16::from_le_bytes([low, high]) }
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.size.to_le_bytes());
        bytes[4] = self.kind;
        bytes[5..].copy_from_slice(&self.tag.to_le_bytes());
        bytes
    }
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// There is no such message in this dialect.
    #[error("there is no message of type {0}")]
    Unknown(u8),
    /// Fields are missing, too many, or out of range.
    #[error("a message of type {0} is not as it should be")]
    Malformed(u8),
}

#[cfg(test)]
mod tests;
