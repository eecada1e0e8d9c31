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
pub use reply::Reply;
pub use sender::Sender;
pub use tap::{Record, Tap};

/// A channel for at most `capacity` messages.
///
/// # Panics
/// When `capacity` is 0 or 2^24 and more.
pub fn channel<T: Message>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (queue, consumer) = queue::Queue::new(capacity);
    (Sender::local(queue), Receiver::new(inlet::Inlet::new(consumer)))
}
