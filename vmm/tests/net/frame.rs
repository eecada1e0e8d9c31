//! Frames of the built-in guest's network load, made and judged on the host without any of its code.
//!
//! ```text
//!  0 destination  6 source  12 EtherType 88 b5
//! 14 magic  16 stream  18 kind  20 bytes of the frame
//! 24 number in its stream  32 checksum  40 data
//! ```

/// The `EtherType` for experiments.
pub(crate) const ETHER_TYPE: u16 = 0x88b5;

const MAGIC: u16 = 0x6e76;
const DATA: usize = 40;
const HELLO: u16 = 1;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The guest says that it is there.
    Hello,
    /// One to be counted.
    Data {
        /// The stream it belongs to.
        stream: u16,
        /// Its place there.
        number: u64,
    },
    /// Not as it was sent.
    Damaged,
}

/// A frame of so many bytes with data that follows from its number.
pub(crate) fn make(stream: u16, number: u64, bytes: usize) -> Vec<u8> {
    assert!(bytes >= DATA, "a frame of {bytes} bytes");
    let mut frame = vec![0; bytes];
    frame[0..6].copy_from_slice(&[0x02, 0, 0, 0, 0, 0xfd]);
    frame[6..12].copy_from_slice(&[0x02, 0, 0, 0, 0, 0xfe]);
    frame[12..14].copy_from_slice(&ETHER_TYPE.to_be_bytes());
    frame[14..16].copy_from_slice(&MAGIC.to_le_bytes());
    frame[16..18].copy_from_slice(&stream.to_le_bytes());
    frame[20..24].copy_from_slice(&(bytes as u32).to_le_bytes());
    for (at, byte) in frame.iter_mut().enumerate().skip(DATA) {
        *byte = (number as usize).wrapping_mul(31).wrapping_add(at * 7) as u8;
    }
    renumber(&mut frame, number);
    frame
}

/// Gives a frame another number and leaves its data.
pub(crate) fn renumber(frame: &mut [u8], number: u64) {
    frame[24..32].copy_from_slice(&number.to_le_bytes());
    let sum = checksum(frame);
    frame[32..40].copy_from_slice(&sum.to_le_bytes());
}

/// Judges a frame of the right `EtherType`.
pub(crate) fn read(frame: &[u8]) -> Frame {
    let known = frame.len() >= DATA
        && frame[14..16] == MAGIC.to_le_bytes()
        && word(frame, 16) >> 32 == frame.len() as u64
        && word(frame, 32) == checksum(frame);
    if !known {
        return Frame::Damaged;
    }
    let [stream, kind] = [16, 18].map(|at| u16::from_le_bytes([frame[at], frame[at + 1]]));
    if kind == HELLO { Frame::Hello } else { Frame::Data { stream, number: word(frame, 24) } }
}

/// All words but the addresses and the checksum itself, each times an odd number of its own.
fn checksum(frame: &[u8]) -> u64 {
    let head = word(frame, 16).wrapping_mul(3).wrapping_add(word(frame, 24).wrapping_mul(5));
    let data = (DATA..frame.len()).step_by(8).zip((7..).step_by(2));
    let sum = data.fold(head, |sum, (at, factor): (usize, u64)| {
        sum.wrapping_add(word(frame, at).wrapping_mul(factor))
    });
    sum ^ u64::from(MAGIC)
}

/// Eight bytes, or what there is of them and zeros.
fn word(frame: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    let part = &frame[at..frame.len().min(at + 8)];
    bytes[..part.len()].copy_from_slice(part);
    u64::from_le_bytes(bytes)
}
