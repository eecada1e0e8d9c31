//! Frames of the load: numbered and with a checksum, so that a lost, doubled, torn or changed frame
//! each show. Integers are little-endian.
//!
//! ```text
//!  0 destination  6 source  12 EtherType 88 b5
//! 14 magic  16 stream  18 kind  20 bytes of the frame
//! 24 number in its stream  32 checksum  40 data
//! ```
//!
//! The checksum is over everything from byte 14 on but itself; a word counts by its place.

use crate::platform::mmio::Window;

/// Bytes of the addresses and all fields; shorter frames are none of ours.
pub(crate) const HEAD_BYTES: u32 = 40;
/// The `EtherType` for experiments, as it stands in the frame.
const ETHER_TYPE: u16 = 0xb588;
const MAGIC: u16 = 0x6e76;

const DESTINATION: u64 = 0;
const SOURCE: u64 = 6;
const TYPE: u64 = 12;
const MAGIC_AT: u64 = 14;
const STREAM: u64 = 16;
const KIND: u64 = 18;
const BYTES: u64 = 20;
const NUMBER: u64 = 24;
const CHECKSUM: u64 = 32;
const DATA: u64 = 40;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To be counted.
    Data = 0,
    /// Says that its sender is there.
    Hello = 1,
}

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

/// The fields of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) stream: u16,
    pub(crate) kind: Kind,
    pub(crate) number: u64,
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A frame of the load, as it was sent.
    Whole(Head),
    /// One that is not as it was sent.
    Damaged,
    /// Somebody else's.
    Foreign,
}

/// A frame that is sent again and again with other numbers: its data is written once.
#[derive(Clone, Copy)]
pub(crate) struct Template {
    frame: Window,
    bytes: u32,
    data_sum: u64,
}

impl Template {
    /// Makes a frame of all of `frame`, whose start is aligned to 8 bytes, with data that follows
    /// from `seed`.
    pub(crate) fn new(frame: Window, from: Mac, to: Mac, seed: u64) -> Self {
        let bytes = frame.length() as u32;
        assert!(bytes >= HEAD_BYTES, "a frame of {bytes} bytes");
        write_mac(&frame, DESTINATION, to);
        write_mac(&frame, SOURCE, from);
        frame.write(TYPE, ETHER_TYPE);
        frame.write(MAGIC_AT, MAGIC);
        let mut number = seed;
        for at in DATA..u64::from(bytes) {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(at);
            frame.write(at, (number >> 56) as u8);
        }
        Self { frame, bytes, data_sum: data_sum(&frame) }
    }

    /// Makes it the frame with these fields.
    #[inline]
    pub(crate) fn fill(&self, head: Head) {
        let fields =
            u64::from(head.stream) | (head.kind as u64) << 16 | u64::from(self.bytes) << 32;
        self.frame.write(STREAM, fields);
        self.frame.write(NUMBER, head.number);
        self.frame.write(CHECKSUM, checksum(fields, head.number, self.data_sum));
    }
}

/// Looks at a frame, whose start is aligned to 8 bytes.
#[inline]
pub(crate) fn read(frame: &Window) -> Found {
    let ours = frame.length() >= u64::from(HEAD_BYTES)
        && frame.read::<u16>(TYPE) == ETHER_TYPE
        && frame.read::<u16>(MAGIC_AT) == MAGIC;
    if !ours {
        return Found::Foreign;
    }
    let (fields, number): (u64, u64) = (frame.read(STREAM), frame.read(NUMBER));
    let sum: u64 = frame.read(CHECKSUM);
    let kind = match frame.read::<u16>(KIND) {
        0 => Kind::Data,
        1 => Kind::Hello,
        _ => return Found::Damaged,
    };
    let bytes: u32 = frame.read(BYTES);
    if u64::from(bytes) != frame.length() || sum != checksum(fields, number, data_sum(frame)) {
        return Found::Damaged;
    }
    Found::Whole(Head { stream: fields as u16, kind, number })
}

/// Sends a frame back to where it came from.
#[inline]
pub(crate) fn swap_addresses(frame: &Window) {
    for at in [0, 2, 4] {
        let (to, from): (u16, u16) = (frame.read(DESTINATION + at), frame.read(SOURCE + at));
        frame.write(DESTINATION + at, from);
        frame.write(SOURCE + at, to);
    }
}

fn write_mac(frame: &Window, offset: u64, mac: Mac) {
    for (at, byte) in mac.into_iter().enumerate() {
        frame.write(offset + at as u64, byte);
    }
}

#[inline]
fn checksum(fields: u64, number: u64, data_sum: u64) -> u64 {
    let head = fields.wrapping_mul(3).wrapping_add(number.wrapping_mul(5));
    head.wrapping_add(data_sum) ^ u64::from(MAGIC)
}

/// The sum of all words of data, each times an odd number that is its place's; the last word is
/// filled up with zeros.
#[inline]
fn data_sum(frame: &Window) -> u64 {
    let (mut sum, mut factor, mut at) = (0u64, 7u64, DATA);
    while at + 8 <= frame.length() {
        sum = sum.wrapping_add(frame.read::<u64>(at).wrapping_mul(factor));
        factor = factor.wrapping_add(2);
        at += 8;
    }
    let mut last = 0;
    for shift in 0..frame.length() - at {
        last |= u64::from(frame.read::<u8>(at + shift)) << (8 * shift);
    }
    sum.wrapping_add(last.wrapping_mul(factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head { stream: 3, kind: Kind::Data, number: 0x0102_0304_0506 };

    fn frame(bytes: usize) -> Window {
        let window = Window::dma(bytes, 8);
        Template::new(window, [2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], 9).fill(HEAD);
        window
    }

    #[test]
    fn what_is_sent_is_found_whole() {
        for bytes in [40, 41, 47, 48, 60, 1514, 9000] {
            assert_eq!(read(&frame(bytes)), Found::Whole(HEAD), "{bytes} bytes");
        }
        let hello = Head { kind: Kind::Hello, ..HEAD };
        let window = Window::dma(60, 8);
        Template::new(window, [0; 6], [0; 6], 0).fill(hello);
        assert_eq!(read(&window), Found::Whole(hello));
    }

    #[test]
    fn every_changed_byte_shows() {
        let window = frame(75);
        for at in 16..75 {
            let byte: u8 = window.read(at);
            window.write(at, byte ^ 0x10);
            assert_eq!(read(&window), Found::Damaged, "byte {at}");
            window.write(at, byte);
        }
        assert_eq!(read(&window.part(0, 74)), Found::Damaged);
        assert_eq!(read(&window), Found::Whole(HEAD));
    }

    #[test]
    fn other_frames_are_foreign() {
        assert_eq!(read(&Window::dma(60, 8)), Found::Foreign);
        assert_eq!(read(&frame(60).part(0, 39)), Found::Foreign);
    }

    #[test]
    fn an_echo_is_whole_and_goes_back() {
        let window = frame(60);
        swap_addresses(&window);
        assert_eq!((window.read::<u8>(5), window.read::<u8>(11)), (1, 2));
        assert_eq!(read(&window), Found::Whole(HEAD));
    }
}
