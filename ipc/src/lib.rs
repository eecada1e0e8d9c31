//! How actors talk: typed, bounded channels, calls with deadlines, descriptors in messages.
//!
//! ```text
//!   Sender<T> ──clone──▶ Sender<T>            Receiver<T>
//!      │ send(T)            │                     ▲ recv()
//!      ▼                    ▼                     │
//!   [ bounded queue: a full channel is back-pressure, never growth ]
//!
//!   call(|reply| Request { .., reply }, deadline)  ──▶  actor  ──▶  reply.send(answer)
//! ```
//!
//! An actor holds ends of channels and does not know whether the other end is in the same task,
//! on another thread or in another process. Holding a `Sender<T>` is the privilege to send `T`.
//!
//! ```
//! # use std::time::Duration;
//! # use ipc::{Deadline, Reply};
//! # use serde::{Deserialize, Serialize};
//! #[derive(Serialize, Deserialize)]
//! struct Double {
//!     value: u32,
//!     reply: Reply<u32>,
//! }
//!
//! let (sender, mut receiver) = ipc::channel::<Double>(4);
//! let second = Deadline::after(Duration::from_secs(1));
//! let actor = std::thread::spawn(move || {
//!     while let Ok(Double { value, reply }) = receiver.recv_blocking(second) {
//!         reply.send(value * 2);
//!     }
//! });
//! assert_eq!(sender.call_blocking(|reply| Double { value: 21, reply }, second), Ok(42));
//! drop(sender);
//! actor.join().unwrap();
//! ```
//!
//! Between processes the same senders and receivers write to and read from shared memory; see
//! [`link`]. They get there as fields of messages: what an actor holds is what it was given.
//!
//! Nothing here grows without a bound and nothing waits without an end: a channel has a capacity, a
//! call has a deadline, and the death of the other process ends every wait for it.
//!
//! Each operation exists twice: `async` for tasks on any executor, and `_blocking` for threads
//! that have none, such as vCPU threads.

mod codec;
mod deadline;
mod error;
mod fd;
mod inlet;
pub mod link;
mod message;
mod oneshot;
mod queue;
mod receiver;
mod reply;
mod sender;
mod sending;
mod spin;
mod sync;
mod tap;
mod timer;
mod waiters;

pub use deadline::Deadline;
pub use error::{
    CallError, RecvBlockingError, RecvError, SendError, TryRecvError, TrySendError, Unsendable,
};
pub use fd::Fd;
pub use message::Message;
pub use receiver::Receiver;
pub use reply::{Answer, Reply};
pub use sender::Sender;
pub use tap::{Listener, Record, Tap};

/// A channel for at most `capacity` messages.
///
/// # Panics
/// When `capacity` is 0 or 2^24 and more.
pub fn channel<T: Message>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (queue, consumer) = queue::Queue::new(capacity);
    (Sender::local(queue), Receiver::new(inlet::Inlet::new(consumer)))
}
