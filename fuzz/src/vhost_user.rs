//! A front end that writes anything to its connection.

use std::cell::RefCell;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use devices::rate_limit::RateLimits;
use devices::virtio::parts::{DeviceParts, Parts};
use devices::virtio::queue::InflightRegion;
use devices::virtio::rng::RngParts;
use devices::virtio::vhost_user::VhostUserStart;
use executor::{Config, DriverChoice, Executor};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::script::Script;

/// Messages of one input.
const MOST_MESSAGES: usize = 40;
/// Requests of the protocol have numbers below.
const MOST_REQUEST: u8 = 48;
const PATIENCE: Duration = Duration::from_secs(20);
const MEMORY_BYTES: u64 = 256 << 10;

thread_local! {
    static EXECUTOR: RefCell<Executor> = RefCell::new(executor());
}

fn executor() -> Executor {
    let config = Config { driver: DriverChoice::Epoll, ..Config::default() };
    Executor::new(&config).expect("an event loop")
}

/// Messages with headers that hold, mostly, and with descriptors where the input says so.
pub(crate) fn front_end(input: &[u8]) {
    let mut script = Script::new(input);
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let memory = memfd_create("guest", MemfdFlags::CLOEXEC).expect("memory");
    ftruncate(&memory, MEMORY_BYTES).expect("memory");
    let event = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
    ours.set_nonblocking(true).expect("a socket");
    for _ in 0..MOST_MESSAGES {
        if script.is_over() {
            break;
        }
        say(&ours, &mut script, &memory, &event);
    }
    ours.shutdown(Shutdown::Write).expect("an end");
    let device = RngParts::new(RateLimits::NONE);
    let (queues, size) = device.profile().inflight_size();
    let inflight = InflightRegion::create(queues, size).expect("memory for a record");
    let start = VhostUserStart {
        inflight: inflight.file().try_clone_to_owned().expect("a descriptor").into(),
        device: DeviceParts::Rng(device),
        connection: OwnedFd::from(theirs).into(),
    };
    EXECUTOR.with_borrow_mut(|executor| {
        let served = executor.block_on(executor::timeout(PATIENCE, start.run()));
        // The reason is for a log.
        let _ = served.expect("a conversation ends when the front end has gone");
    });
}

/// vhost-user: request, flags, size, payload.
fn say(socket: &UnixStream, script: &mut Script<'_>, memory: &OwnedFd, event: &OwnedFd) {
    let request = u32::from(script.byte() % MOST_REQUEST);
    let manner = script.byte();
    let flags = if manner & 0x80 == 0 { 1 | u32::from(manner & 8) } else { script.word() };
    let count = usize::from(script.byte());
    let payload = script.bytes(count);
    let size = if manner & 0x40 == 0 { payload.len() as u32 } else { script.word() };
    let words = [request, flags, size].map(u32::to_le_bytes);
    let message = [words.as_flattened(), payload].concat();
    let descriptors: Vec<_> = match manner & 7 {
        0 | 1 => vec![],
        2 | 3 => vec![event.as_fd()],
        4 | 5 => vec![memory.as_fd()],
        6 => vec![memory.as_fd(), memory.as_fd()],
        _ => vec![event.as_fd(); 8],
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "room for them");
    }
    // Where there is no room any more, the rest goes unsaid.
    let _ = sendmsg(socket, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL);
}
