//! Formatting without floating point, and JSON strings.

use alloc::{format, string::String};
use core::fmt::Write;

/// A count of bytes with the largest unit that leaves no fraction.
pub(crate) fn bytes(count: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in units {
        if count != 0 && count.trailing_zeros() >= shift {
            return format!("{} {unit}", count >> shift);
        }
    }
    format!("{count} B")
}

/// Nanoseconds as microseconds with one digit after the point.
pub(crate) fn microseconds(nanoseconds: u64) -> String {
    let tenths = (nanoseconds + 50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A string of JSON, with its quotes.
pub(crate) fn json_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            control if control < ' ' => {
                // Writing to a String does not fail.
                let _ = write!(json, "\\u{:04x}", u32::from(control));
            }
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

/// Bytes as text up to the first NUL, with a dot for what is not printable ASCII.
pub(crate) fn printable(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_the_largest_whole_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1536), "1536 B");
        assert_eq!(bytes(4096), "4 KiB");
        assert_eq!(bytes(3 << 20), "3 MiB");
        assert_eq!(bytes(6 << 30), "6 GiB");
    }

    #[test]
    fn microseconds_are_rounded() {
        assert_eq!(microseconds(0), "0.0");
        assert_eq!(microseconds(949), "0.9");
        assert_eq!(microseconds(950), "1.0");
        assert_eq!(microseconds(1_234_567), "1234.6");
    }

    #[test]
    fn json_strings_escape_what_they_must() {
        assert_eq!(json_string("a\"b\\c\n"), r#""a\"b\\c\u000a""#);
    }

    #[test]
    fn device_text_becomes_printable() {
        assert_eq!(printable(b"disk 0\0junk"), "disk 0");
        assert_eq!(printable(b"\x1b[2J\xff"), ".[2J.");
    }
}
