//! A peer that writes anything to a connection for calls: to who serves them, and to who makes one.
#![no_main]

use std::cell::RefCell;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use executor::{Config, Executor, Fd};
use libfuzzer_sys::fuzz_target;
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

fuzz_target!(|input: &[u8]| {
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
});

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
