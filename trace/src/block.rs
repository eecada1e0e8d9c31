//! Where readers can begin.

/// Records do not cross multiples of this.
pub(crate) const BLOCK_BYTES: u64 = 64 << 10;
/// The longest record.
pub(crate) const RECORD_BYTES: usize = 8 << 10;

const _: () = assert!(RECORD_BYTES < BLOCK_BYTES as usize);
