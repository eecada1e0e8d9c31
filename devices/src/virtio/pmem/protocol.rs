//! What the specification says of persistent memory (virtio 1.3 section 5.19).

use zerocopy::IntoBytes;

/// Virtio device type (section 5.19.1).
pub(super) const DEVICE_TYPE: u16 = 27;

/// The one request (section 5.19.6): what was written is to be on the disk.
pub(super) const FLUSH: u32 = 0;

/// It was carried out.
pub(super) const OK: u32 = 0;
/// It was not.
pub(super) const FAILED: u32 = 1;

/// Bytes of a request, and of its answer.
pub(super) const WORD: usize = size_of::<u32>();

/// The configuration space (section 5.19.4): where the memory is.
pub(super) fn config(start: u64, length: u64) -> Vec<u8> {
    [start.to_le(), length.to_le()].as_bytes().to_vec()
}
