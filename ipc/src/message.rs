//! What can travel on a channel.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Anything that serializes and owns what it refers to.
///
/// Inside one process nothing is serialized; the bound is what lets the same actor run in another
/// process. Besides plain data a message can have [`Fd`](crate::Fd), [`Reply`](crate::Reply),
/// [`Sender`](crate::Sender) and [`Receiver`](crate::Receiver) as fields, at any depth.
///
/// What a sandboxed process sends is hostile, and two kinds of types make that dangerous: recursive
/// ones, which a long frame of nested values makes overflow the stack, and collections of zero-sized
/// elements, whose announced length costs the sender nothing and the receiver time. Messages that
/// come from there should have neither.
pub trait Message: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Message for T {}
