//! Everything of a host and an agent that reads bytes by itself: what begins a raw stream, secrets, tables
//! of mounts, messages. Whatever is understood says the same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use proto::credentials::Secret;
use proto::mounts::Mount;
use proto::streams::{Answer, HELLO_BYTES, Ticket};
use proto::v1;

fn again<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        assert_eq!(M::decode(&message.encode_to_vec()[..]).as_ref(), Ok(&message));
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&kind, bytes)) = input.split_first() else { return };
    match kind % 14 {
        0 => {
            let mut frame = [0; HELLO_BYTES];
            let length = bytes.len().min(HELLO_BYTES);
            frame[..length].copy_from_slice(&bytes[..length]);
            if let Ok(ticket) = Ticket::from_hello(frame) {
                assert_eq!(ticket.hello(), frame);
            }
        }
        1 => drop(Ticket::from_slice(bytes)),
        2 => drop(bytes.first().map(|&byte| Answer::check(byte))),
        3 => {
            let text = String::from_utf8_lossy(bytes);
            let _ = Secret::parse(&text);
            let _ = Secret::from_oem_string(&text);
            assert!(!Secret::new([9; 32]).authorizes(&text) || text.ends_with("0909"));
        }
        4 => {
            if let Ok(mounts) = Mount::parse_table(&String::from_utf8_lossy(bytes)) {
                let lines: String = mounts.iter().map(|mount| mount.to_line() + "\n").collect();
                assert_eq!(Mount::parse_table(&lines).as_ref(), Ok(&mounts));
            }
        }
        5 => again::<v1::StartRequest>(bytes),
        6 => again::<v1::StartReply>(bytes),
        7 => again::<v1::WriteFileRequest>(bytes),
        8 => again::<v1::LogBatch>(bytes),
        9 => again::<v1::ReadyRequest>(bytes),
        10 => again::<v1::PortsReply>(bytes),
        11 => again::<v1::CrashReport>(bytes),
        12 => again::<v1::WaitReply>(bytes),
        _ => again::<v1::MountRequest>(bytes),
    }
});
