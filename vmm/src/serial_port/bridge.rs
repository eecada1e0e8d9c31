//! A host end for a device in another process, which gets a socket and nothing more.
//!
//! ```text
//!   device ──socket──▶ pump ──▶ [ Line ] ──▶ output task ──▶ terminal, pty, socket
//!      ▲                                                          │
//!      └──socket── pump ◀── [ Inbox ] ◀── input task ◀────────────┘
//! ```
//!
//! The pumps read nothing that was not passed on, so a reader that is slow fills the socket, and then
//! the device waits.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use executor::{Fd, Task, TaskGroup, timeout};

use super::{Absence, Connected, Error, Guest, Line, Receive, SerialPort, create};
use crate::config::SerialConfig;
use crate::serial_port::output::write_all;
use crate::terminal::RawTerminal;

/// A read takes at most this much: less than a line holds, so that nothing of it is ever lost.
const READ_BYTES: usize = 32 << 10;
/// What waits to be sent to the device at most.
const INBOX_BYTES: usize = 32 << 10;
/// How long a reader of the last output may stand still.
const STALL: Duration = Duration::from_secs(1);
/// How many times so long it may take in all.
const MOST_STALLS: usize = 4;

/// What the device gets of a host end.
#[derive(Debug)]
pub enum DeviceEnd {
    /// Nothing.
    Null,
    /// A file for its output.
    Output(OwnedFd),
    /// A socket for both ways.
    Both(OwnedFd),
}

/// A host end that is open and not connected yet.
#[derive(Debug)]
pub struct Bridge {
    port: SerialPort,
    socket: OwnedFd,
}

/// Who is at the device's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A terminal of the guest, which goes on when nobody looks.
    Console,
    /// A stream of bytes: they wait for somebody to take them.
    Stream,
}

impl Bridge {
    /// Opens or makes the host end. Where the device can use it by itself, there is no bridge.
    pub fn open(
        config: &SerialConfig,
        purpose: Purpose,
    ) -> Result<(Option<Self>, DeviceEnd), Error> {
        match config {
            SerialConfig::Null => return Ok((None, DeviceEnd::Null)),
            SerialConfig::File(path) => return Ok((None, DeviceEnd::Output(create(path)?))),
            SerialConfig::Stdio | SerialConfig::Pty | SerialConfig::Unix(_) => {}
        }
        let mut port = SerialPort::open(config, Guest::Kernel)?;
        (port.absence, port.what) = match purpose {
            Purpose::Console => (Absence::Drops, "console"),
            Purpose::Stream => (Absence::Waits, "console port"),
        };
        let (own, device) = UnixStream::pair().map_err(Error::Attach)?;
        device.set_nonblocking(true).map_err(Error::Attach)?;
        Ok((Some(Self { port, socket: own.into() }), DeviceEnd::Both(device.into())))
    }

    /// Connects both ends on the current executor. A terminal becomes raw.
    pub fn connect(self) -> Result<Bridged, Error> {
        let socket = Fd::new(self.socket).map_err(Error::Attach)?;
        let line = self.port.line();
        let inbox = Arc::new(Inbox::default());
        let connected = self.port.connect(Arc::clone(&inbox) as Arc<dyn Receive>)?;
        let tasks = TaskGroup::new();
        tasks.spawn(to_device(inbox, Arc::clone(&line), socket.clone()));
        let moved = Rc::new(Cell::new(0));
        let from_device = executor::spawn(from_device(socket, line, Rc::clone(&moved)));
        Ok(Bridged { connected, from_device, moved, tasks })
    }
}

/// A connected host end.
pub struct Bridged {
    connected: Connected,
    from_device: Task<()>,
    /// Reads of what the device has sent.
    moved: Rc<Cell<u64>>,
    tasks: TaskGroup,
}

impl Bridged {
    /// The terminal that belongs to the guest, if there is one.
    pub fn terminal(&self) -> Option<Rc<RawTerminal>> {
        self.connected.terminal()
    }

    /// Passes on what the device has sent and takes everything down. Called when the device is gone.
    pub async fn finish(mut self) {
        for _ in 0..MOST_STALLS {
            let before = self.moved.get();
            let in_time = timeout(STALL, &mut self.from_device).await.is_ok();
            if in_time || self.moved.get() == before {
                // A reader that has stalled loses the rest.
                break;
            }
        }
        drop(self.from_device);
        self.tasks.cancel_all().await;
        self.connected.finish().await;
    }
}

async fn from_device(socket: Fd, line: Arc<Line>, moved: Rc<Cell<u64>>) {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        line.emptied().await;
        buffer.clear();
        let result;
        (result, buffer) = socket.read(buffer).await;
        match result {
            Ok(count) if count > 0 => {
                moved.update(|moved| moved.wrapping_add(1));
                line.send(&buffer);
            }
            // The device is gone with its machine.
            _ => return,
        }
    }
}

/// What the input task has read and the device has not got yet.
#[derive(Default)]
struct Inbox {
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    pump: Option<Waker>,
}

impl Inbox {
    /// All bytes, when there are some.
    async fn take(&self) -> Vec<u8> {
        std::future::poll_fn(|context| {
            let mut state = self.lock();
            if !state.bytes.is_empty() {
                return Poll::Ready(std::mem::take(&mut state.bytes));
            }
            state.pump = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// A thread that panicked left whole bytes behind.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receive for Inbox {
    fn receive(&self, bytes: &[u8]) -> usize {
        let mut state = self.lock();
        let taken = bytes.len().min(INBOX_BYTES - state.bytes.len());
        state.bytes.extend_from_slice(&bytes[..taken]);
        if let Some(pump) = state.pump.take() {
            pump.wake();
        }
        taken
    }

    /// Nobody here knows; keys wait in the socket.
    fn is_listening(&self) -> bool {
        true
    }

    fn read_bytes(&self) -> usize {
        INBOX_BYTES
    }
}

async fn to_device(inbox: Arc<Inbox>, line: Arc<Line>, socket: Fd) {
    loop {
        let bytes = inbox.take().await;
        line.has_room();
        if write_all(&socket, bytes).await.0.is_err() {
            // The device is gone with its machine.
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use executor::{DriverChoice, Executor};

    use super::*;

    const BYTES: usize = 4 << 20;

    fn pattern() -> Vec<u8> {
        (0..BYTES).map(|index| (index.wrapping_mul(0x9e37_79b1) >> 11) as u8).collect()
    }

    async fn read_all(fd: &Fd) -> Vec<u8> {
        let mut all = Vec::with_capacity(BYTES);
        while all.len() < BYTES {
            let (count, bytes) = fd.read(Vec::with_capacity(BYTES - all.len())).await;
            assert!(count.expect("a read") > 0, "the other end is open");
            all.extend(bytes);
        }
        all
    }

    /// What is sent before anybody comes waits, and nothing is lost either way.
    #[test]
    fn a_named_port_carries_every_byte_both_ways() {
        for driver in [DriverChoice::Auto, DriverChoice::Epoll] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("port");
            let end = SerialConfig::Unix(path.clone());
            let (bridge, device) = Bridge::open(&end, Purpose::Stream).expect("opens");
            let DeviceEnd::Both(device) = device else { panic!("a socket is wanted") };
            let config = executor::Config { driver, ..executor::Config::default() };
            Executor::new(&config).expect("an executor").block_on(async {
                let bridged = bridge.expect("a bridge").connect().expect("connects");
                let device = Fd::new(device).expect("attaches");
                let from_guest = device.clone();
                let sender =
                    executor::spawn(async move { write_all(&from_guest, pattern()).await.0 });
                executor::yield_now().await;
                let client = UnixStream::connect(&path).expect("listens");
                let client = Fd::new(OwnedFd::from(client)).expect("attaches");
                assert!(read_all(&client).await == pattern());
                sender.await.expect("all is sent");
                let to_guest = client.clone();
                let sender =
                    executor::spawn(async move { write_all(&to_guest, pattern()).await.0 });
                assert!(read_all(&device).await == pattern());
                sender.await.expect("all is sent");
                drop(device);
                bridged.finish().await;
            });
        }
    }
}
