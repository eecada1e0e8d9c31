//! Sends frames to an interface as no honest program would: with offloads that do not fit, offsets
//! beyond the end, and any length; a program of its own, without dependencies.
//!
//! ```text
//!   hostile INTERFACE MAC COUNT
//! ```
//!
//! The kernel refuses some of them. What it lets through reaches the other end of a tap.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;

const AF_PACKET: c_int = 17;
const SOCK_RAW: c_int = 3;
const SOL_PACKET: c_int = 263;
const PACKET_VNET_HDR: c_int = 15;
const HEADER: usize = 10;
const LONGEST: usize = 65_535;
/// Ethernet, IP and TCP of an ordinary segment.
const HEADERS: u64 = 54;

#[repr(C)]
struct SockaddrLl {
    family: u16,
    protocol: u16,
    index: c_int,
    kind: u16,
    packet_kind: u8,
    length: u8,
    address: [u8; 8],
}

unsafe extern "C" {
    fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, size: u32) -> c_int;
    fn bind(fd: c_int, address: *const SockaddrLl, length: u32) -> c_int;
    fn send(fd: c_int, data: *const c_void, length: usize, flags: c_int) -> isize;
    fn if_nametoindex(name: *const c_char) -> u32;
}

/// A small generator of numbers, always the same ones.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    /// One that a header may well have, or any.
    fn word(&mut self, likely: &[u64]) -> [u8; 2] {
        let word = match self.below(8) {
            0 => self.below(1 << 16),
            1 => self.below(128),
            _ => likely[self.below(likely.len() as u64) as usize],
        };
        (word as u16).to_le_bytes()
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [interface, mac, count] = &arguments[..] else { panic!("hostile INTERFACE MAC COUNT") };
    let mac: Vec<u8> =
        mac.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a byte")).collect();
    let count: u64 = count.parse().expect("a number");
    let fd = open(interface).expect("a packet socket");
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let mut frame = vec![0; HEADER + LONGEST];
    let (mut sent, mut segmented) = (0, 0);
    for _ in 0..count {
        let length = make(&mut numbers, &mut frame, &mac);
        // SAFETY: the frame lives during the call and is that long.
        let result = unsafe { send(fd, frame.as_ptr().cast(), length, 0) };
        sent += u64::from(result >= 0);
        segmented += u64::from(result >= 0 && frame[1] != 0);
    }
    println!("hostile: sent {sent} of {count}, {segmented} to segment");
    // What it is for.
    assert!(sent > count / 10 && segmented > count / 100);
}

fn open(interface: &str) -> io::Result<c_int> {
    let name = CString::new(interface)?;
    let on: c_int = 1;
    // SAFETY: plain calls; what they point to lives meanwhile and is that long.
    unsafe {
        let fd = socket(AF_PACKET, SOCK_RAW, 0);
        let index = if_nametoindex(name.as_ptr()) as c_int;
        let (kind, packet_kind, length, address) = (0, 0, 0, [0; 8]);
        let family = AF_PACKET as u16;
        let own = SockaddrLl { family, protocol: 0, index, kind, packet_kind, length, address };
        let size = size_of_val(&on) as u32;
        if fd < 0
            || index == 0
            || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, (&raw const on).cast(), size) != 0
            || bind(fd, &raw const own, size_of_val(&own) as u32) != 0
        {
            return Err(io::Error::last_os_error());
        }
        Ok(fd)
    }
}

/// Makes a header and a frame; their length together.
fn make(numbers: &mut Numbers, frame: &mut [u8], mac: &[u8]) -> usize {
    let length = match numbers.below(8) {
        0 => numbers.below(64),
        1 => HEADERS + numbers.below(16),
        2 => numbers.below(LONGEST as u64),
        3 => 8900 + numbers.below(200),
        _ => HEADERS + numbers.below(3000),
    } as usize;
    for bytes in frame[..HEADER + length].chunks_mut(8) {
        let noise = numbers.below(u64::MAX).to_le_bytes();
        bytes.copy_from_slice(&noise[..bytes.len()]);
    }
    let (header, data) = frame.split_at_mut(HEADER);
    let flags = [0, 1, 1, 1, 2, 3, 0xff];
    let kinds = [0, 0, 1, 1, 4, 4, 3, 5, 0x81, 0x84, 0x80, 7];
    header[0] = flags[numbers.below(flags.len() as u64) as usize];
    header[1] = kinds[numbers.below(kinds.len() as u64) as usize];
    header[2..4].copy_from_slice(&numbers.word(&[HEADERS, 74, 0, 14]));
    header[4..6].copy_from_slice(&numbers.word(&[1448, 1, 536, 8948]));
    header[6..8].copy_from_slice(&numbers.word(&[34, 34, 54, 14]));
    header[8..10].copy_from_slice(&numbers.word(&[16, 16, 6, 0]));
    if length < HEADERS as usize {
        return HEADER + length;
    }
    // To the guest, to all, to many, or to anybody.
    match numbers.below(8) {
        0 => data[..6].fill(0xff),
        1 => data[0] |= 1,
        2 => {}
        _ => data[..6].copy_from_slice(mac),
    }
    // An IP header that leads on to TCP or UDP, most of the time.
    let words: &[u8] = match numbers.below(6) {
        0 => return HEADER + length,
        1 | 2 => &[0x86, 0xdd, 0x60],
        3 => &[0x81, 0x00, 0x00, 0x05, 0x08, 0x00, 0x45],
        _ => &[0x08, 0x00, 0x45],
    };
    data[12..12 + words.len()].copy_from_slice(words);
    let protocol = if words[0] == 0x86 { 20 } else { 23 };
    data[protocol] = if numbers.below(3) == 0 { 17 } else { 6 };
    // The offset of TCP's data.
    data[46] = 0x50;
    if numbers.below(2) == 0 {
        data[16..18].copy_from_slice(&((length - 14) as u16).to_be_bytes());
    }
    HEADER + length
}
