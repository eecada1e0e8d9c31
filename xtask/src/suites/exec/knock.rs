//! `knock CONTEXT PORT` says on a vsock port what a client of gRPC says first, and tells what comes back.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::FromRawFd;

/// HTTP/2's preface (RFC 9113 section 3.4) with empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const AF_VSOCK: i32 = 40;
const SOCK_STREAM: i32 = 1;

/// `struct sockaddr_vm`.
#[repr(C)]
struct Address {
    family: u16,
    reserved: u16,
    port: u32,
    context: u32,
    zero: [u8; 4],
}

unsafe extern "C" {
    fn socket(domain: i32, kind: i32, protocol: i32) -> i32;
    fn connect(fd: i32, address: *const Address, length: u32) -> i32;
}

fn main() {
    let numbers: Vec<u32> = std::env::args().skip(1).map(|word| word.parse().unwrap()).collect();
    let [context, port] = numbers[..] else { panic!("knock CONTEXT PORT") };
    let address =
        Address { family: AF_VSOCK as u16, reserved: 0, port, context, zero: [0; 4] };
    // SAFETY: makes a descriptor, and reads an address of the length that is given with it.
    let (fd, connected) = unsafe {
        let fd = socket(AF_VSOCK, SOCK_STREAM, 0);
        (fd, connect(fd, &address, size_of::<Address>() as u32))
    };
    if connected != 0 {
        println!("unreachable: {}", std::io::Error::last_os_error());
        return;
    }
    // SAFETY: it was just made and nobody else has it. Reads and writes are those of any socket.
    let mut stream = unsafe { TcpStream::from_raw_fd(fd) };
    let _ = stream.write_all(PREFACE);
    match stream.read(&mut [0; 64]) {
        Ok(count) if count > 0 => println!("answered"),
        refused => println!("refused: {refused:?}"),
    }
}
