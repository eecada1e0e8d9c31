//! A disk in a trace: what it is made of, its requests in words, and itself again for a replay.

use std::os::fd::OwnedFd;

use zerocopy::FromBytes;

use super::BlockImage;
use super::image::Geometry;
use super::protocol::Header;
use crate::rate_limit::RateLimits;
use crate::virtio::parts::ExecutorNeeds;

impl BlockImage {
    /// A disk as a trace tells of it, over a descriptor that takes the place of its file. It has no limits:
    /// what was taken says when. None if these bytes are of something else.
    pub fn from_trace(file: OwnedFd, state: &[u8]) -> Option<Self> {
        let geometry = postcard::from_bytes(state).ok()?;
        let (limits, executor) = (RateLimits::NONE, ExecutorNeeds::default());
        let (file, further) = (ipc::Fd::new(file), Vec::new());
        Some(Self { file, further, geometry, limits, executor })
    }
}

/// What a trace says of a disk.
pub(super) fn state(geometry: &Geometry) -> Vec<u8> {
    postcard::to_stdvec(geometry).unwrap_or_default()
}

/// A request by its first bytes (virtio 1.3 section 5.2.6): `read at sector 2048`.
pub fn describe_request(header: &[u8]) -> Option<String> {
    let (header, _) = Header::read_from_prefix(header).ok()?;
    let kind = match header.kind {
        0 => "read",
        1 => "write",
        4 => "flush",
        8 => "get id",
        11 => "discard",
        13 => "write zeroes",
        other => return Some(format!("request of type {other}")),
    };
    Some(match header.kind {
        0 | 1 => format!("{kind} at sector {}", header.sector),
        _ => kind.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_words() {
        let header = [1_u32.to_le_bytes(), [0; 4], 77_u32.to_le_bytes(), [0; 4]].concat();
        assert_eq!(describe_request(&header).as_deref(), Some("write at sector 77"));
        assert_eq!(describe_request(&header[..15]), None);
        assert_eq!(describe_request(&[9; 16]).as_deref(), Some("request of type 151587081"));
    }
}
