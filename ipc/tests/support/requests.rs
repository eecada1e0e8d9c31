//! One of each kind of request, and links to send them over.

#![allow(dead_code, unreachable_pub, reason = "not every test uses every helper")]

use ipc::link::{LinkConfig, Opened, pair};
use ipc::{Fd, Message, Receiver, Reply, Sender};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Number(u32),
    Data(Vec<u8>),
    Double { value: u32, reply: Reply<u32> },
    Echo { data: Vec<u8>, reply: Reply<Vec<u8>> },
    Fds(Vec<Fd>),
    Connect { reply: Reply<Result<Fd, String>> },
    TakeSender(Sender<Request>),
    TakeReceiver(Receiver<Request>),
}

pub type Ends<A, B> = (Opened<A, B>, Opened<B, A>);

pub fn open<A: Message, B: Message>(config: &LinkConfig) -> Ends<A, B> {
    let (first, second) = pair::<A, B>(config).unwrap();
    (first.open().unwrap(), second.open().unwrap())
}

pub fn requests() -> Ends<Request, Request> {
    open(&LinkConfig::default())
}

pub fn number(received: Result<Request, impl std::fmt::Debug>) -> u32 {
    match received {
        Ok(Request::Number(number)) => number,
        other => panic!("not a number: {other:?}"),
    }
}
