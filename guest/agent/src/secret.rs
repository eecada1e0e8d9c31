//! Finds the boot's secret in the machine's SMBIOS tables (DMTF DSP0134).
//!
//! ```text
//!   structure: type, length (of the formatted part), handle, fields..., strings, each ended by a
//!   zero byte, and one more zero byte
//! ```

use std::io;

use proto::credentials::Secret;

/// The tables as the kernel shows them, to root only.
const TABLES: &str = "/sys/firmware/dmi/tables/DMI";

const TYPE_OEM_STRINGS: u8 = 11;
const TYPE_END: u8 = 127;
const HEADER_BYTES: usize = 4;

/// Reads the secret that the host has put into the tables.
pub(crate) fn from_firmware() -> io::Result<Secret> {
    let tables = std::fs::read(TABLES)?;
    let mut secrets = oem_strings(&tables)
        .filter_map(|text| std::str::from_utf8(text).ok())
        .filter_map(Secret::from_oem_string);
    match secrets.next() {
        Some(secret) => secret.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        None => Err(io::Error::new(io::ErrorKind::NotFound, "the SMBIOS tables have no secret")),
    }
}

/// All OEM strings, up to the first structure that is not well-formed.
pub(crate) fn oem_strings(tables: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = tables;
    std::iter::from_fn(move || {
        let (structure, next) = next_structure(rest)?;
        rest = next;
        Some(structure)
    })
    .filter(|structure| structure.kind == TYPE_OEM_STRINGS)
    .flat_map(|structure| structure.strings.split(|&byte| byte == 0))
    .filter(|text| !text.is_empty())
}

struct Structure<'a> {
    kind: u8,
    /// Without the two zero bytes at the end.
    strings: &'a [u8],
}

fn next_structure(tables: &[u8]) -> Option<(Structure<'_>, &[u8])> {
    let (&kind, &length) = (tables.first()?, tables.get(1)?);
    if kind == TYPE_END || usize::from(length) < HEADER_BYTES {
        return None;
    }
    let strings = tables.get(usize::from(length)..)?;
    let end = strings.windows(2).position(|pair| pair == [0, 0])?;
    Some((Structure { kind, strings: &strings[..end] }, &strings[end + 2..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_of_the_right_type_are_found() {
        let tables = [
            &[1u8, 6, 0, 0, 9, 9][..],
            b"wrong\0also\0\0",
            &[2, 5, 1, 0, 9],
            b"\0\0",
            &[11, 5, 2, 0, 2],
            b"first\0second\0\0",
            &[127, 4, 3, 0],
            b"\0\0",
            &[11, 5, 2, 0, 1],
            b"late\0\0",
        ]
        .concat();
        assert_eq!(oem_strings(&tables).collect::<Vec<_>>(), [&b"first"[..], b"second"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(tables in proptest::collection::vec(
            prop_oneof![Just(0u8), Just(4), Just(11), any::<u8>()], 0..200)) {
            for text in oem_strings(&tables) {
                prop_assert!(!text.is_empty());
            }
        }
    }
}
