//! Records one behind the other, as rings and files hold them.

use thiserror::Error;

use crate::record::Record;

/// Records do not cross multiples of this.
pub(crate) const BLOCK_BYTES: u64 = 64 << 10;
/// The length before each record.
pub(crate) const PREFIX_BYTES: usize = 4;
/// Instead of a length: nothing more up to the end of the block.
pub(crate) const PAD: u32 = u32::MAX;

/// What a record of so many bytes takes with its length.
pub(crate) fn padded(length: usize) -> usize {
    (PREFIX_BYTES + length).next_multiple_of(PREFIX_BYTES)
}

/// Bytes are no records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there is no record at byte {position} of what the actor wrote")]
pub struct Malformed {
    /// Where.
    pub position: u64,
}

/// Reads records, up to the first that is none.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    bytes: &'a [u8],
    position: u64,
}

impl<'a> Records<'a> {
    /// Bytes that begin with a record, at this position of all that was written.
    pub fn new(bytes: &'a [u8], position: u64) -> Self {
        Self { bytes, position }
    }

    /// Where the next one is, of all that was written.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    fn skip(&mut self, count: u64) {
        let count = count.min(self.bytes.len() as u64);
        self.bytes = &self.bytes[count as usize..];
        self.position = self.position.wrapping_add(count);
    }

    fn fail(&mut self) -> Malformed {
        self.bytes = &[];
        Malformed { position: self.position }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record<'static>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((prefix, rest)) = self.bytes.split_first_chunk::<PREFIX_BYTES>() else {
                return if self.bytes.is_empty() { None } else { Some(Err(self.fail())) };
            };
            let length = u32::from_le_bytes(*prefix);
            if length == PAD {
                self.skip(BLOCK_BYTES - self.position % BLOCK_BYTES);
                continue;
            }
            let Some(encoded) = rest.get(..length as usize) else { return Some(Err(self.fail())) };
            let Ok(record) = postcard::from_bytes(encoded) else { return Some(Err(self.fail())) };
            self.skip(padded(length as usize) as u64);
            return Some(Ok(record));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_records_up_to_some_point(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            position in any::<u32>(),
        ) {
            let found: Vec<_> = Records::new(&bytes, position.into()).collect();
            prop_assert!(found.iter().rev().skip(1).all(Result::is_ok));
        }
    }
}
