//! Moves bytes over TCP on localhost and checks them.
//!
//!   serve PORT        takes what a client sends, to its end, and sends the same number of bytes back
//!   ask PORT BYTES    sends so many, ends its half, and checks what comes back
//!   hold PORT         connects, and waits until the other side is gone

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

/// The byte at a place of a stream; the period has nothing to do with any buffer.
fn byte(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 17) ^ (at / 65_521)) as u8
}

fn send(mut stream: &TcpStream, count: u64) -> std::io::Result<()> {
    let mut sent = 0;
    let mut buffer = vec![0; 64 << 10];
    while sent < count {
        let size = buffer.len().min((count - sent) as usize);
        for (at, place) in buffer[..size].iter_mut().enumerate() {
            *place = byte(sent + at as u64);
        }
        stream.write_all(&buffer[..size])?;
        sent += size as u64;
    }
    stream.shutdown(Shutdown::Write)
}

fn receive(mut stream: &TcpStream) -> std::io::Result<u64> {
    let mut count = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let size = stream.read(&mut buffer)?;
        if size == 0 {
            return Ok(count);
        }
        for (at, place) in buffer[..size].iter().enumerate() {
            assert_eq!(*place, byte(count + at as u64), "byte {}", count + at as u64);
        }
        count += size as u64;
    }
}

fn serve(stream: &TcpStream) {
    match receive(stream) {
        Ok(count) if count > 0 => send(stream, count).unwrap(),
        ended => println!("a client is gone: {ended:?}"),
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let address = |port: &str| format!("127.0.0.1:{port}");
    match words[..] {
        ["serve", port] => {
            let listener = TcpListener::bind(address(port)).unwrap();
            println!("listening");
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                std::thread::spawn(move || serve(&stream));
            }
        }
        ["ask", port, count] => {
            let count = count.parse().unwrap();
            let stream = TcpStream::connect(address(port)).unwrap();
            let sender = stream.try_clone().unwrap();
            let sending = std::thread::spawn(move || send(&sender, count));
            let received = receive(&stream).unwrap();
            sending.join().unwrap().unwrap();
            println!("sent {count}, received {received}");
            std::process::exit(i32::from(received != count));
        }
        ["hold", port] => {
            let stream = TcpStream::connect(address(port)).unwrap();
            println!("connected");
            println!("the other side is gone: {:?}", receive(&stream));
        }
        _ => panic!("serve PORT, ask PORT BYTES or hold PORT"),
    }
}
