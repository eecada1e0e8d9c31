//! An actor that tries what the sandbox forbids, to show that it is forbidden.

mod attempts;
mod ring;

use std::io::Write as _;
use std::os::fd::BorrowedFd;

use ipc::{Receiver, Reply};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::{Deserialize, Serialize};

/// What the probe needs.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProbeStart {
    /// What it is asked to try.
    pub requests: Receiver<ProbeRequest>,
}

/// What the probe is asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum ProbeRequest {
    /// Send the number back.
    Echo(u64, Reply<u64>),
    /// Which descriptors are open?
    Descriptors(Reply<Vec<i32>>),
    /// On which numbers is there a socket that could be sent to?
    Sockets(Reply<Vec<i32>>),
    /// Write these bytes to standard error, as far as they go.
    Say(Vec<u8>, Reply<()>),
    /// Try this.
    Try(Attempt, Reply<AttemptOutcome>),
}

/// What came of an attempt, if the process survived it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptOutcome {
    /// The kernel refused with this errno.
    Refused(i32),
    /// It was possible.
    Done,
}

/// Something that no actor may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attempt {
    /// Open a file for reading.
    Open(String),
    /// Create a file.
    Create(String),
    /// Make a TCP socket and connect it to this port of the host.
    Connect(u16),
    /// Connect to an abstract Unix socket of this name.
    ConnectAbstract(String),
    /// Send signal 0 to a process.
    Signal(i32),
    /// Send SIGKILL to all processes that it can see.
    SignalAll,
    /// Trace a process.
    Trace(i32),
    /// Read the memory of a process.
    ReadMemory(i32),
    /// Mount a file system.
    Mount,
    /// Make a user namespace, and be root in it.
    Unshare,
    /// Become root.
    SetUser,
    /// Regain capabilities.
    SetCapabilities,
    /// Execute a program.
    Execute(String),
    /// Fork.
    Fork,
    /// Make a ring without restrictions.
    NewRing,
    /// Map memory that is writable and executable.
    MapExecutable,
    /// Make memory executable.
    MakeExecutable,
    /// Change the flags of standard error, as it would those of any descriptor that others share.
    SetDescriptorFlags,
    /// Change the program's own attributes: be dumpable again.
    BeDumpable,
    /// Have the executor's ring do something that it may not.
    Ring(RingOperation),
    /// Touch memory that is not there.
    Fault,
    /// Abort.
    Abort,
    /// Panic.
    Panic,
    /// Use up the stack.
    OverflowStack,
    /// Loop, without ever coming back.
    Hang,
}

/// Operations that the probe's ring does not let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RingOperation {
    /// `fsync`
    Sync,
    /// `accept`
    Accept,
    /// `connect`
    Connect,
    /// `fallocate`
    Allocate,
}

/// Serves until nobody can ask any more.
pub(super) async fn run(start: ProbeStart) {
    let mut requests = start.requests;
    while let Ok(request) = requests.recv().await {
        match request {
            ProbeRequest::Echo(number, reply) => reply.send(number),
            ProbeRequest::Descriptors(reply) => reply.send(open_descriptors()),
            ProbeRequest::Sockets(reply) => reply.send(attempts::sockets(&open_descriptors())),
            ProbeRequest::Say(bytes, reply) => {
                let _ = std::io::stderr().write_all(&bytes);
                reply.send(());
            }
            ProbeRequest::Try(Attempt::Ring(operation), reply) => {
                reply.send(ring::attempt(operation).await);
            }
            ProbeRequest::Try(attempt, reply) => reply.send(attempts::carry_out(attempt)),
        }
    }
}

/// Asks for each number that a descriptor can have whether it is one.
fn open_descriptors() -> Vec<i32> {
    /// More than the limit of any actor.
    const BEYOND: i32 = 1024;
    let is_open = |fd: &i32| {
        // SAFETY: whether it is open is what is asked; poll says POLLNVAL for what is not.
        let borrowed = unsafe { BorrowedFd::borrow_raw(*fd) };
        let mut polled = [PollFd::from_borrowed_fd(borrowed, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = rustix::event::poll(&mut polled, Some(&now));
        !polled[0].revents().contains(PollFlags::NVAL)
    };
    (0..BEYOND).filter(is_open).collect()
}
