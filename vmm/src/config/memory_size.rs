//! An amount of guest memory.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The suffixes, largest first, and how many bits each shifts.
const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

/// What a plain number counts.
const DEFAULT_SHIFT: u32 = 20;

/// An amount of memory in bytes, written as `512` (MiB), `64K`, `512M`, `6G`, `1T` or `4096B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(u64);

/// Why a text is no amount of memory.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MemorySizeError {
    /// It does not read as a number with a unit.
    #[error("an amount like 512 (MiB), 512M or 6G is wanted")]
    Form,
    /// It is a number of bytes that no address reaches.
    #[error("it is more than 64 bits of address reach")]
    TooLarge,
}

impl MemorySize {
    /// So many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many MiB; an amount that 64 bits do not hold becomes the largest.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << DEFAULT_SHIFT))
    }

    /// The amount in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for MemorySize {
    type Err = MemorySizeError;

    fn from_str(text: &str) -> Result<Self, MemorySizeError> {
        let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
        let suffix = text[digits.len()..].to_ascii_uppercase();
        // MiB, MB and M are one unit here: memory is always counted in powers of two.
        let suffix = suffix.strip_suffix("IB").or(suffix.strip_suffix('B')).unwrap_or(&suffix);
        let plain = digits.len() == text.len();
        let shift = match suffix {
            "" if plain => DEFAULT_SHIFT,
            "" => 0,
            _ => UNITS
                .iter()
                .find(|(unit, _)| suffix.chars().eq([*unit]))
                .map(|(_, shift)| *shift)
                .ok_or(MemorySizeError::Form)?,
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(MemorySizeError::Form);
        }
        // Only digits are left, so that what fails is the range.
        let count: u64 = digits.parse().map_err(|_| MemorySizeError::TooLarge)?;
        count.checked_mul(1 << shift).map(Self).ok_or(MemorySizeError::TooLarge)
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in UNITS {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl Serialize for MemorySize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MemorySize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = MemorySize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount like 512 (MiB), \"512M\" or \"6G\"")
    }

    fn visit_u64<E: de::Error>(self, mib: u64) -> Result<MemorySize, E> {
        mib.checked_mul(1 << DEFAULT_SHIFT)
            .map(MemorySize)
            .ok_or_else(|| E::custom(MemorySizeError::TooLarge))
    }

    fn visit_i64<E: de::Error>(self, mib: i64) -> Result<MemorySize, E> {
        let mib = u64::try_from(mib).map_err(|_| E::custom(MemorySizeError::Form))?;
        self.visit_u64(mib)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<MemorySize, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_shown() {
        let table = [
            ("512", 512 << 20, "512M"),
            ("0", 0, "0B"),
            ("1B", 1, "1B"),
            ("1b", 1, "1B"),
            ("4096B", 4096, "4K"),
            ("64K", 64 << 10, "64K"),
            ("64k", 64 << 10, "64K"),
            ("512M", 512 << 20, "512M"),
            ("512MB", 512 << 20, "512M"),
            ("512MiB", 512 << 20, "512M"),
            ("1536M", 1536 << 20, "1536M"),
            ("6G", 6 << 30, "6G"),
            ("2T", 2 << 40, "2T"),
            ("16777215T", 16_777_215 << 40, "16777215T"),
        ];
        for (text, bytes, shown) in table {
            let size: MemorySize = text.parse().expect(text);
            assert_eq!(size.bytes(), bytes, "{text}");
            assert_eq!(size.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(size), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "M", "-1", "1.5G", "512X", "512 M", "M512", "5M12", "512MM", "0x10", "ß"]
        {
            assert_eq!(text.parse::<MemorySize>(), Err(MemorySizeError::Form), "{text}");
        }
        for text in ["16777216T", "99999999999999999999999", "18446744073709551615"] {
            assert_eq!(text.parse::<MemorySize>(), Err(MemorySizeError::TooLarge), "{text}");
        }
    }
}
