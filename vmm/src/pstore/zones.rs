//! What is in the zones. A guest wrote them, and may have written anything.

use std::fmt;

use super::Layout;

/// What a zone begins with (`PERSISTENT_RAM_SIG`).
const SIGNATURE: u32 = 0x4347_4244;
/// Signature, start and size.
const HEADER_BYTES: usize = 12;
/// What a packed record may become: the kernel packs what fits into two and a half zones.
const UNPACKED_FACTOR: usize = 4;

/// What a zone is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneKind {
    /// What a panic or oops has left.
    Record(usize),
    /// The end of the kernel's console.
    Console,
    /// Calls of functions, as bytes.
    Functions,
    /// What programs have written to `/dev/pmsg0`.
    Messages,
}

impl fmt::Display for ZoneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(number) => write!(f, "record {number}"),
            Self::Console => f.write_str("console"),
            Self::Functions => f.write_str("functions"),
            Self::Messages => f.write_str("messages"),
        }
    }
}

/// A zone with something in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// What it is for.
    pub kind: ZoneKind,
    /// The bytes, the oldest first; a packed record unpacked.
    pub bytes: Vec<u8>,
}

/// All zones that have something, in order.
pub fn read(memory: &[u8]) -> Vec<Zone> {
    let Layout { size, record, console, others } = Layout::of(memory.len() as u64);
    let records = size.saturating_sub(console + 2 * others).checked_div(record).unwrap_or(0);
    // As the driver lays them out, one after the other.
    let sizes = (0..records as usize).map(|number| (ZoneKind::Record(number), record)).chain([
        (ZoneKind::Console, console),
        (ZoneKind::Functions, others),
        (ZoneKind::Messages, others),
    ]);
    let mut rest = memory;
    let mut zones = Vec::new();
    for (kind, size) in sizes {
        let Some((zone, after)) = rest.split_at_checked(size as usize) else { break };
        rest = after;
        let Some(ring) = ring(zone).filter(|bytes| !bytes.is_empty()) else { continue };
        let bytes = match kind {
            ZoneKind::Record(_) => unpack(ring, zone.len()),
            _ => ring,
        };
        zones.push(Zone { kind, bytes });
    }
    zones
}

/// The bytes of a ring in order. None if it is none.
fn ring(zone: &[u8]) -> Option<Vec<u8>> {
    let number = |at: usize| Some(u32::from_le_bytes(*zone.get(at..)?.first_chunk()?));
    let (signature, start, size) = (number(0)?, number(4)? as usize, number(8)? as usize);
    let data = zone.get(HEADER_BYTES..)?;
    if signature != SIGNATURE || size > data.len() || start > size {
        return None;
    }
    let (newer, older) = data[..size].split_at(start);
    Some([older, newer].concat())
}

/// `====SECONDS.MICROSECONDS-C`, a line of its own, and what DEFLATE (RFC 1951) has made of the text; with `-D`
/// it is the text itself. What cannot be unpacked is left as it is.
fn unpack(record: Vec<u8>, zone: usize) -> Vec<u8> {
    let Some(end) = record.iter().position(|&byte| byte == b'\n') else { return record };
    let (head, packed) = record.split_at(end + 1);
    if !head.starts_with(b"====") || !head.ends_with(b"-C\n") {
        return record;
    }
    let most = UNPACKED_FACTOR * zone;
    match miniz_oxide::inflate::decompress_to_vec_with_limit(packed, most) {
        Ok(text) => [head, &text].concat(),
        Err(_) => record,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(start: u32, size: u32, data: &[u8], length: usize) -> Vec<u8> {
        let mut zone = [SIGNATURE, start, size].map(u32::to_le_bytes).concat();
        zone.extend(data);
        zone.resize(length, 0);
        zone
    }

    #[test]
    fn rings_are_put_in_order_and_records_unpacked() {
        let packed = miniz_oxide::deflate::compress_to_vec(b"Oops#1 Part1\n", 6);
        let record = [b"====1.000000-C\n".as_slice(), &packed].concat();
        let quarter = 256 << 10;
        let mut memory = zone(0, record.len() as u32, &record, quarter);
        memory.extend(zone(0, 0, b"", quarter));
        memory.extend(zone(4, 9, b"new old: ", quarter));
        memory.extend(vec![0xff; 8 << 10]);
        memory.resize(1 << 20, 0);
        let zones = read(&memory);
        let expected = |kind, bytes: &[u8]| Zone { kind, bytes: bytes.into() };
        assert_eq!(
            zones,
            [
                expected(ZoneKind::Record(0), b"====1.000000-C\nOops#1 Part1\n"),
                expected(ZoneKind::Console, b"old: new "),
            ]
        );
    }

    #[test]
    fn what_is_no_ring_is_nothing() {
        for (start, size) in [(0, 600), (11, 10), (u32::MAX, u32::MAX)] {
            assert_eq!(ring(&zone(start, size, b"x", 512)), None);
        }
        assert_eq!(ring(&[]), None);
        assert_eq!(read(&[]), []);
    }

    proptest! {
        #[test]
        fn any_memory_is_read(start in 0..600_u32, size in 0..600_u32, data: Vec<u8>, length in 0..5000_usize) {
            let mut memory = zone(start, size, &data, 512);
            memory.resize(length, 7);
            for zone in read(&memory) {
                prop_assert!(zone.bytes.len() <= 5 * length);
            }
            let _ = ring(&memory);
        }
    }
}
