//! What is on a disk image: a file system, or partitions of which one is the root.
//!
//! Only what the kernel has to be told is read. What an image says is checked, never believed: it may be
//! anybody's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const SECTOR: u64 = 512;
/// The header of a partition table (UEFI specification, section 5.3.2).
const GPT_SIGNATURE: &[u8; 8] = b"EFI PART";
/// Tables have 128 entries; this bounds what is read.
const MAX_ENTRIES: u32 = 256;
const LEAST_ENTRY: u32 = 128;
const LONGEST_ENTRY: u32 = 1024;
/// The type of a root partition for x86-64 (Discoverable Partitions Specification),
/// 4f68bce3-e8cd-4db1-96e7-fbcaf984b709, as it is on disk.
const ROOT_X86_64: [u8; 16] = [
    0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8, 0xb1, 0x4d, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09,
];

/// A kind of file system: what the kernel calls it, where it has which magic number, and what it needs
/// besides its driver.
struct Kind {
    fstype: &'static str,
    at: u64,
    magic: &'static [u8],
    modules: &'static [&'static str],
}

/// Later ones have their checksums from a driver that they do not name.
const KINDS: [Kind; 5] = [
    Kind { fstype: "ext4", at: 1080, magic: &[0x53, 0xef], modules: &["crc32c_generic", "ext4"] },
    Kind { fstype: "xfs", at: 0, magic: b"XFSB", modules: &["crc32c_generic", "xfs"] },
    Kind {
        fstype: "btrfs",
        at: 0x1_0040,
        magic: b"_BHRfS_M",
        modules: &["crc32c_generic", "btrfs"],
    },
    Kind { fstype: "squashfs", at: 0, magic: b"hsqs", modules: &["squashfs"] },
    Kind { fstype: "erofs", at: 1024, magic: &[0xe2, 0xe1, 0xf5, 0xe0], modules: &["erofs"] },
];

/// The root of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// The number of its partition, if there are partitions.
    pub(super) partition: Option<u32>,
    /// As the kernel calls it.
    pub(super) fstype: &'static str,
}

impl Found {
    /// What the kernel needs to mount it.
    pub(super) fn modules(self) -> &'static [&'static str] {
        let kind = KINDS.iter().find(|kind| kind.fstype == self.fstype);
        kind.map_or(&[], |kind| kind.modules)
    }
}

/// Looks for the root in an image.
pub(super) fn examine(path: &Path) -> io::Result<Option<Found>> {
    let file = File::open(path)?;
    if let Some(fstype) = file_system(&file, 0)? {
        return Ok(Some(Found { partition: None, fstype }));
    }
    partitions(&file)
}

fn file_system(file: &File, start: u64) -> io::Result<Option<&'static str>> {
    for Kind { fstype, at, magic, .. } in KINDS {
        let mut found = vec![0; magic.len()];
        let Some(place) = start.checked_add(at) else {
            return Ok(None);
        };
        if read(file, place, &mut found)? && found == magic {
            return Ok(Some(fstype));
        }
    }
    Ok(None)
}

/// The partition that says it is the root, or the first with a file system.
fn partitions(file: &File) -> io::Result<Option<Found>> {
    let mut header = [0; 92];
    if !read(file, SECTOR, &mut header)? || !header.starts_with(GPT_SIGNATURE) {
        return Ok(None);
    }
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| header[at + byte]));
    let table = u64::from(word(72)) | u64::from(word(76)) << 32;
    let (count, size) = (word(80).min(MAX_ENTRIES), word(84));
    if !(LEAST_ENTRY..=LONGEST_ENTRY).contains(&size) {
        return Ok(None);
    }
    let mut first = None;
    for index in 0..count {
        let mut entry = [0; 40];
        let at = table.checked_mul(SECTOR).and_then(|at| at.checked_add(u64::from(index * size)));
        let Some(at) = at else { break };
        if !read(file, at, &mut entry)? {
            break;
        }
        let start = u64::from_le_bytes([32, 33, 34, 35, 36, 37, 38, 39].map(|byte| entry[byte]));
        let Some(start) = start.checked_mul(SECTOR).filter(|&start| start > 0) else {
            continue;
        };
        if let Some(fstype) = file_system(file, start)? {
            let found = Found { partition: Some(index + 1), fstype };
            if entry.starts_with(&ROOT_X86_64) {
                return Ok(Some(found));
            }
            first = first.or(Some(found));
        }
    }
    Ok(first)
}

/// Whether the file has so many bytes there.
fn read(file: &File, at: u64, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact_at(bytes, at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        // The kernel takes no offsets of more than 63 bits.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(parts: &[(u64, &[u8])]) -> tempfile::NamedTempFile {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(4 << 20).unwrap();
        for (at, bytes) in parts {
            image.as_file().write_all_at(bytes, *at).unwrap();
        }
        image
    }

    fn entry(kind: [u8; 16], start: u64) -> Vec<u8> {
        [&kind[..], &[7; 16], &start.to_le_bytes(), &start.to_le_bytes()].concat()
    }

    fn header(table: u64, count: u32, size: u32) -> Vec<u8> {
        let mut header = GPT_SIGNATURE.to_vec();
        header.resize(72, 0);
        header.extend(table.to_le_bytes());
        header.extend(count.to_le_bytes());
        header.extend(size.to_le_bytes());
        header.resize(92, 0);
        header
    }

    #[test]
    fn file_systems_are_told_apart() {
        for kind in KINDS {
            let image = image(&[(kind.at, kind.magic)]);
            let found = examine(image.path()).unwrap().unwrap();
            assert_eq!((found.partition, found.fstype), (None, kind.fstype));
            assert!(found.modules().contains(&kind.fstype));
        }
        assert_eq!(examine(image(&[]).path()).unwrap(), None);
        assert_eq!(examine(Path::new("/dev/null")).unwrap(), None);
    }

    #[test]
    fn the_partition_that_says_so_is_the_root() {
        let magic: &[u8] = &[0x53, 0xef];
        let parts = |kind| {
            [
                (512, header(2, 128, 128)),
                (1024, entry([1; 16], 2048)),
                (1024 + 256, entry(kind, 4096)),
                (2048 * 512 + 1080, magic.to_vec()),
                (4096 * 512 + 1080, magic.to_vec()),
            ]
        };
        for (kind, number) in [(ROOT_X86_64, 3), ([2; 16], 1)] {
            let parts = parts(kind);
            let parts: Vec<_> = parts.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
            let found = examine(image(&parts).path()).unwrap().unwrap();
            assert_eq!((found.partition, found.fstype), (Some(number), "ext4"));
        }
    }

    #[test]
    fn tables_that_lie_are_no_tables() {
        for (table, count, size) in
            [(2, 128, 0), (2, 128, 1 << 31), (u64::MAX, 128, 128), (1 << 62, u32::MAX, 128)]
        {
            let header = header(table, count, size);
            let entry = entry(ROOT_X86_64, u64::MAX);
            let image = image(&[(512, &header), (1024, &entry)]);
            assert_eq!(examine(image.path()).unwrap(), None, "{table} {count} {size}");
        }
    }
}
