//! Links: channels between two processes.
//!
//! ```text
//!   process A                    shared memory                     process B
//!   Sender<T>  ──frames──▶  [ ring A → B            ]  ──frames──▶  Receiver<T>
//!   Receiver<U> ◀─frames──  [ ring B → A            ]  ◀──frames──  Sender<U>
//!   call(..)   ◀──answers─  [ reply slots of A      ]  ◀──answers─  Reply<R>
//!              ──answers─▶  [ reply slots of B      ]  ──answers─▶
//!                           [ arenas for more rings ]
//!
//!              ════════════ socket pair: descriptors, and hang-up when a process dies
//!              ──────────── an eventfd per process: the doorbell for tasks
//! ```
//!
//! [`pair`] makes both ends as bundles of descriptors, before a fork or to be sent to where they
//! are needed. Each process [opens](LinkEnd::open) its end and gets one sender and one receiver.
//! Everything further is sent over those: senders and receivers are messages themselves, so what an
//! actor holds is what somebody gave it.
//!
//! A thread waits for the other process by looking at the shared memory for a moment and then with
//! a futex. A task waits through the eventfd, which [`Link::drive`] listens to; it also notices the
//! death of the peer. Every wait ends with the peer: as `PeerDied`, after what it had sent was
//! received.
//!
//! The other process is hostile. All it can write to is the shared memory, the socket and the
//! eventfds; what it writes there is read once, checked, and in the worst case ends the link with
//! [`LinkDeath::Protocol`]. One thing must be denied to it by its system call filter: `fcntl` with
//! `F_SETFL`, with which it could make the eventfds blocking for both processes.

pub(crate) mod arena;
pub(crate) mod channel;
pub(crate) mod core;
mod drive;
pub(crate) mod fds;
pub(crate) mod frame;
pub(crate) mod handle;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod hostile;
mod layout;
pub(crate) mod looking;
mod memory;
mod pace;
pub(crate) mod ring;
mod sleepers;
pub(crate) mod slots;

use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::EventfdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use self::channel::{LinkSender, Source};
use self::core::{Core, Parts};
use self::layout::{Layout, Side};
use self::memory::Memory;
use crate::{Fd, Message, Receiver, Sender};

pub use self::core::LinkDeath;
pub use self::layout::LinkConfig;
pub use self::looking::Looking;

/// A link could not be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The sizes make no sense.
    #[error("a link of these sizes cannot be: {0:?}")]
    Config(LinkConfig),
    /// The shared memory could not be made.
    #[error("cannot make the shared memory of a link")]
    Memory(#[source] io::Error),
    /// The shared memory could not be mapped, or is not what it should be.
    #[error("cannot map the shared memory of a link")]
    Map(#[source] io::Error),
    /// The socket pair could not be made.
    #[error("cannot make the socket pair of a link")]
    Socket(#[source] io::Error),
    /// An eventfd could not be made.
    #[error("cannot make an eventfd for a link")]
    Eventfd(#[source] io::Error),
}

/// One end of a link that no process has opened yet: a bundle of descriptors.
///
/// It can be kept across a fork, by one process each, or sent in a message over another link.
/// `Out` is what this end sends on its first channel, `In` what it receives.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct LinkEnd<Out: Message, In: Message> {
    config: LinkConfig,
    side: Side,
    memory: Fd,
    socket: Fd,
    own_bell: Fd,
    peer_bell: Fd,
    #[serde(skip)]
    messages: PhantomData<fn(Out) -> In>,
}

/// Both ends of a new link. Neither is opened: the memory is mapped where an end is opened, and a
/// process forked after that does not get the mapping.
#[expect(clippy::type_complexity, reason = "the two ends mirror each other")]
pub fn pair<A: Message, B: Message>(
    config: &LinkConfig,
) -> Result<(LinkEnd<A, B>, LinkEnd<B, A>), LinkError> {
    let layout = Layout::new(*config).ok_or(LinkError::Config(*config))?;
    let memory = memory::create(layout.bytes()).map_err(LinkError::Memory)?;
    let sockets = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    );
    let (first_socket, second_socket) = sockets.map_err(|errno| LinkError::Socket(errno.into()))?;
    let first_bell = bell()?;
    let second_bell = bell()?;
    let duplicate = |fd: &OwnedFd| fd.try_clone().map(Fd::from);
    let first = LinkEnd {
        config: *config,
        side: Side::First,
        memory: duplicate(&memory).map_err(LinkError::Memory)?,
        socket: first_socket.into(),
        own_bell: duplicate(&first_bell).map_err(LinkError::Eventfd)?,
        peer_bell: duplicate(&second_bell).map_err(LinkError::Eventfd)?,
        messages: PhantomData,
    };
    let second = LinkEnd {
        config: *config,
        side: Side::Second,
        memory: memory.into(),
        socket: second_socket.into(),
        own_bell: second_bell.into(),
        peer_bell: first_bell.into(),
        messages: PhantomData,
    };
    Ok((first, second))
}

fn bell() -> Result<OwnedFd, LinkError> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    rustix::event::eventfd(0, flags).map_err(|errno| LinkError::Eventfd(errno.into()))
}

/// An open end of a link and the two channels that it begins with.
#[derive(Debug)]
pub struct Opened<Out: Message, In: Message> {
    /// The link itself.
    pub link: Link,
    /// Sends to the other end.
    pub sender: Sender<Out>,
    /// Receives from the other end.
    pub receiver: Receiver<In>,
}

impl<Out: Message, In: Message> LinkEnd<Out, In> {
    /// Maps the memory into this process. To be done after the fork, by the process that uses it.
    pub fn open(self) -> Result<Opened<Out, In>, LinkError> {
        let layout = Layout::new(self.config).ok_or(LinkError::Config(self.config))?;
        let memory = Memory::map(self.memory.as_fd(), layout.bytes()).map_err(LinkError::Map)?;
        let core = Core::new(Parts {
            memory,
            layout,
            side: self.side,
            socket: self.socket.into(),
            own_bell: self.own_bell.into(),
            peer_bell: self.peer_bell.into(),
        });
        let capacity = self.config.capacity as usize;
        let outward = layout.first_ring(self.side);
        let inward = layout.first_ring(self.side.other());
        let producer = ring::Producer::new(Arc::clone(&core), outward, capacity, None);
        let consumer = ring::Consumer::new(Arc::clone(&core), inward, None);
        Ok(Opened {
            link: Link { core },
            sender: Sender::link(LinkSender::new(producer)),
            receiver: Receiver::link(Source::new(consumer)),
        })
    }

    /// The descriptors that the process which opens this end must have.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 4] {
        [&self.memory, &self.socket, &self.own_bell, &self.peer_bell].map(AsFd::as_fd)
    }
}

impl<Out: Message, In: Message> fmt::Debug for LinkEnd<Out, In> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LinkEnd").field("side", &self.side).finish_non_exhaustive()
    }
}

/// An open end of a link.
///
/// The link lives as long as this or anything that came over it; then the peer sees it as dead.
#[derive(Clone)]
pub struct Link {
    core: Arc<Core>,
}

impl Link {
    /// Listens to the doorbell and notices the death of the peer. To be spawned once, on any
    /// executor of the process. Ends when the link ends and says why.
    ///
    /// Tasks that wait for this link are woken only while this runs. Threads wait without it, but
    /// then learn of the death of the peer up to a quarter of a second late.
    pub fn drive(&self) -> impl Future<Output = io::Result<LinkDeath>> + use<> {
        drive::drive(&self.core)
    }

    /// Lets this thread's executor look at the link before it sleeps, in addition to
    /// [`Link::drive`], until the guard is dropped. One thread at a time.
    ///
    /// A message or answer that follows soon after the last is then found without a system call on
    /// either side. The executor looks for some tens of microseconds at most, and only while that
    /// has been paying; who waits for the link without hearing of it costs nothing. See
    /// [`Looking`] for where it never pays.
    ///
    /// While the guard lives, tasks of this thread that wait for the link are to run on this
    /// executor.
    ///
    /// # Panics
    /// When no executor runs on this thread.
    pub fn look_when_idle(&self) -> executor::IdlePoller {
        looking::look_when_idle(&self.core)
    }

    /// Why the link ended, if it has.
    pub fn death(&self) -> Option<LinkDeath> {
        self.core.death()
    }

    /// Ends the link from this side: the peer is not to be heard any more, dead or not.
    pub fn close(&self) {
        self.core.end(LinkDeath::ClosedHere);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Link").field("death", &self.core.death()).finish_non_exhaustive()
    }
}
