//! What a host and the agent of a guest say to each other.

use std::cell::RefCell;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use agent::fuzzing;
use executor::{Config, Executor, Fd};
use prost::Message;
use proto::credentials::Secret;
use proto::mounts::Mount;
use proto::streams::{Answer, HELLO_BYTES, Ticket};
use proto::v1;

/// Fits into the buffer of a socket, so that nobody has to read meanwhile.
const MAX_BYTES: usize = 32 << 10;
/// HTTP/2's preface with empty settings: without it nothing else is looked at.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// Far more than anything takes.
const PATIENCE: Duration = Duration::from_secs(5);

thread_local! {
    static EXECUTOR: RefCell<Executor> =
        RefCell::new(Executor::new(&Config::default()).expect("an event loop"));
}

/// Everything that is read by hand: what begins a raw stream, secrets, tables of mounts, messages.
/// Whatever is understood says the same when it is written again.
pub(crate) fn frames(input: &[u8]) {
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
}

/// What the agent and the host read by themselves, and what the other one, programs of the guest or its
/// kernel have written.
pub(crate) fn texts(input: &[u8]) {
    let Some((&kind, bytes)) = input.split_first() else { return };
    match kind % 9 {
        0 => fuzzing::syslog(bytes),
        1 => fuzzing::kernel_record(bytes),
        2 => fuzzing::listening(bytes),
        3 => fuzzing::connect_line(bytes),
        4 => fuzzing::firmware(bytes),
        5 => fuzzing::mount_options(bytes),
        6 => fuzzing::users(bytes),
        7 => fuzzing::crash(bytes),
        _ => _ = agent_client::is_acceptance(bytes),
    }
}

fn again<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        assert_eq!(M::decode(&message.encode_to_vec()[..]).as_ref(), Ok(&message));
    }
}

/// A peer that writes anything to a connection for calls: to who serves them, and to who makes one.
pub(crate) fn calls(input: &[u8]) {
    let Some((&side, bytes)) = input.split_first() else { return };
    let bytes = &bytes[..bytes.len().min(MAX_BYTES)];
    let (mut peer, socket) = UnixStream::pair().expect("a pair of sockets");
    let greeting = if side & 1 == 0 { PREFACE } else { SETTINGS };
    if side & 2 == 0 {
        peer.write_all(greeting).expect("room");
    }
    peer.write_all(bytes).expect("room");
    peer.shutdown(Shutdown::Write).expect("an end");
    EXECUTOR.with_borrow_mut(|executor| {
        executor.block_on(async {
            let socket = Fd::unregistered(socket).expect("a descriptor");
            let ended = if side & 1 == 0 {
                executor::timeout(PATIENCE, serve(socket)).await
            } else {
                executor::timeout(PATIENCE, call(socket)).await
            };
            ended.expect("a connection whose peer is gone ends");
        });
    });
}

async fn serve(socket: Fd) {
    let answer = |request| {
        let reply = async |_: v1::LogBatch| Ok(v1::LogReply {});
        rpc::unary(request, 4096, reply)
    };
    let _ = rpc::serve(socket, answer).await;
}

async fn call(socket: Fd) {
    if let Ok(channel) = rpc::Channel::open(socket).await {
        let origin = http::Uri::from_static("http://agent");
        let mut agent = v1::agent_client::AgentClient::with_origin(channel, origin);
        let _ = agent.info(v1::InfoRequest {}).await;
    }
}
