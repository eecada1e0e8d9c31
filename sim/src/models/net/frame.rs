//! Frames that know what they are.
//!
//! ```text
//!   virtio header 12 | to 6 | from 6 | type 2 | number 8 | bytes that follow from number and length
//! ```

pub(super) const HEADER: usize = 12;
const NUMBER: usize = HEADER + 14;
const DATA: usize = NUMBER + 8;

pub(super) const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const HOST: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn byte(number: u64, length: usize, index: usize) -> u8 {
    let mixed = number.wrapping_mul(0x9e37_79b9).wrapping_add((index * 31 + length) as u64);
    (mixed ^ (mixed >> 8)) as u8
}

/// A frame with so many bytes of data.
pub(super) fn write(to: [u8; 6], from: [u8; 6], number: u64, data: usize) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    // One buffer, in the direction in which that means something.
    bytes[10] = 1;
    bytes.extend(to);
    bytes.extend(from);
    bytes.extend([0x88, 0xb5]);
    bytes.extend(number.to_le_bytes());
    bytes.extend((0..data).map(|index| byte(number, data, index)));
    bytes
}

/// The number of a frame.
///
/// # Panics
///
/// If it is not as it was written.
pub(super) fn parse(bytes: &[u8], to: [u8; 6], from: [u8; 6]) -> u64 {
    assert!(bytes.len() >= DATA, "a frame of {} bytes", bytes.len());
    let number = bytes[NUMBER..DATA].try_into().expect("eight bytes");
    let number = u64::from_le_bytes(number);
    let expected = write(to, from, number, bytes.len() - DATA);
    assert!(bytes[HEADER..] == expected[HEADER..], "frame {number} has changed on its way");
    number
}
