//! The host's end of the serial port.
//!
//! ```text
//!   vCPU thread                        executor thread
//!   serial device ──send──▶ [ Line ] ──batches──▶ output task ──few writes──▶ stdout, file,
//!        ▲                                                                    pty, socket
//!        └──────── receive ◀─── input task ◀───── reads, when there is room ◀──┘
//! ```
//!
//! The guest's bytes are collected for a moment and written together. The other way, nothing is
//! read that the device has no room for, except keys of a terminal: the escape keys among them
//! must work when the guest does not read.

mod bridge;
mod error;
mod input;
mod line;
mod output;
mod pty;
mod stdio;
mod summary;
mod unix;

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use executor::{Fd, Task, TaskGroup, timeout};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::termios::isatty;

use crate::config::SerialConfig;
use crate::outcome::BuiltInSummary;
use crate::terminal::{LineFeed, RawTerminal};

pub use bridge::{Bridge, Bridged, DeviceEnd, Purpose};
pub use error::Error;
pub use line::Line;

use input::Pending;
use summary::SummaryTap;
pub(crate) use unix::{SocketFile, remove_stale};

/// How long the last output may take; a reader that has stalled loses it.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// The device's side of the line towards the guest.
pub trait Receive: Send + Sync {
    /// Takes as many of the bytes as there is room for and says how many. When it takes fewer, it
    /// calls [`Line::has_room`] once there is room again.
    fn receive(&self, bytes: &[u8]) -> usize;

    /// The guest has asked to be told when bytes arrive.
    fn is_listening(&self) -> bool;

    /// How much to read for it at once: typing and pasted lines.
    fn read_bytes(&self) -> usize {
        1024
    }
}

/// Who is at the other end of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// The built-in guest: plain text with a summary at the end.
    BuiltIn,
    /// A kernel with a terminal driver.
    Kernel,
}

/// An open host end that is not connected yet.
#[derive(Debug)]
pub struct SerialPort {
    end: HostEnd,
    guest: Guest,
    line: Arc<Line>,
    absence: Absence,
    what: &'static str,
}

/// What becomes of output while nobody is at the other end of a socket or pseudo-terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absence {
    /// It is thrown away, and so is what a slow reader does not take: a virtual CPU would wait.
    Stalls,
    /// It is thrown away. A reader may be slow.
    Drops,
    /// It waits.
    Waits,
}

#[derive(Debug)]
enum HostEnd {
    Null,
    Stdio { input: OwnedFd, output: OwnedFd },
    File(OwnedFd),
    Pty(pty::Pty),
    Unix { listener: OwnedFd, file: SocketFile },
}

impl SerialPort {
    /// Opens or makes the host end. Needs no executor.
    pub fn open(config: &SerialConfig, guest: Guest) -> Result<Self, Error> {
        let end = match config {
            SerialConfig::Null => HostEnd::Null,
            SerialConfig::Stdio => stdio::open()?,
            SerialConfig::File(path) => HostEnd::File(create(path)?),
            SerialConfig::Pty => HostEnd::Pty(pty::open()?),
            SerialConfig::Unix(path) => listen(path)?,
        };
        let line = Arc::new(Line::default());
        Ok(Self { end, guest, line, absence: Absence::Stalls, what: "serial port" })
    }

    /// Where the serial device sends the guest's bytes to.
    pub fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line)
    }

    /// Connects both ends on the current executor. A terminal becomes raw.
    pub fn connect(self, device: Arc<dyn Receive>) -> Result<Connected, Error> {
        let attach = |fd: OwnedFd| Fd::new(fd).map_err(Error::Attach);
        self.line.read_here();
        let tasks = TaskGroup::new();
        let summary = Rc::new(RefCell::new(SummaryTap::new(self.guest)));
        let (line, tap) = (Arc::clone(&self.line), Rc::clone(&summary));
        let pending = Pending::new(device, Arc::clone(&self.line));
        let mut connected = Connected {
            line: self.line,
            summary,
            tasks,
            output: None,
            terminal: None,
            socket: None,
        };
        connected.output = Some(match self.end {
            HostEnd::Null => executor::spawn(output::discard(line, tap)),
            HostEnd::File(file) => executor::spawn(output::to_stream(line, tap, attach(file)?)),
            HostEnd::Stdio { input, output } => {
                let line_feed = match self.guest {
                    Guest::BuiltIn => LineFeed::NewLine,
                    Guest::Kernel => LineFeed::AsSent,
                };
                let terminal = RawTerminal::enter(line_feed).map_err(Error::Terminal)?.map(Rc::new);
                let input = attach(input)?;
                match &terminal {
                    Some(terminal) => {
                        connected.tasks.spawn(stdio::keys(input, pending, Rc::clone(terminal)));
                    }
                    None => connected.tasks.spawn(input::from_stream(input, pending)),
                }
                connected.terminal = terminal;
                executor::spawn(output::to_stdout(line, tap, attach(output)?))
            }
            HostEnd::Pty(pty) => {
                pty::announce(&pty, self.what);
                let fd = attach(pty.controller)?;
                match self.absence {
                    Absence::Stalls => {
                        connected.tasks.spawn(pty::input(fd.clone(), pty.user, pending));
                        executor::spawn(output::to_lossy_stream(line, tap, fd))
                    }
                    Absence::Drops | Absence::Waits => {
                        connected.tasks.spawn(pty::input_of_any(fd.clone(), pending));
                        executor::spawn(pty::output_to_any(line, tap, fd, self.absence))
                    }
                }
            }
            HostEnd::Unix { listener, file } => {
                let client = unix::Client::default();
                connected.socket = Some(file);
                connected.tasks.spawn(unix::serve(attach(listener)?, client.clone(), pending));
                executor::spawn(unix::output(line, tap, client, self.absence))
            }
        });
        Ok(connected)
    }
}

/// A connected line. Dropping it without [`Connected::finish`] may lose the last output.
pub struct Connected {
    line: Arc<Line>,
    summary: Rc<RefCell<SummaryTap>>,
    tasks: TaskGroup,
    output: Option<Task<()>>,
    terminal: Option<Rc<RawTerminal>>,
    socket: Option<SocketFile>,
}

impl Connected {
    /// The terminal that belongs to the guest, if there is one.
    pub fn terminal(&self) -> Option<Rc<RawTerminal>> {
        self.terminal.clone()
    }

    /// Writes what the guest has sent until now, takes everything down and gives the summary of
    /// the built-in guest, if it came to one. Called when no vCPU runs any more.
    pub async fn finish(mut self) -> Option<BuiltInSummary> {
        self.line.close();
        if let Some(output) = self.output.take()
            && timeout(LAST_OUTPUT, output).await.is_err()
        {
            log::warn!("serial port: the last output is lost, its reader has stalled");
        }
        self.tasks.cancel_all().await;
        // Given back here and not when the last task is gone.
        drop(self.socket.take());
        crate::terminal::restore();
        let lost = self.line.lost();
        if lost > 0 {
            log::warn!("serial port: {lost} bytes of output are lost, nobody read them in time");
        }
        self.summary.borrow().summary()
    }
}

fn create(path: &PathBuf) -> Result<OwnedFd, Error> {
    let open = || {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(OFlags::NOCTTY.bits() as i32)
            .open(path)?;
        // A terminal that is stopped would hold up the thread.
        if isatty(&file) {
            fcntl_setfl(&file, OFlags::WRONLY | OFlags::NONBLOCK)?;
        }
        Ok(OwnedFd::from(file))
    };
    open().map_err(|source| Error::Create { path: path.clone(), source })
}

fn listen(path: &PathBuf) -> Result<HostEnd, Error> {
    let failed = |source| Error::Listen { path: path.clone(), source };
    unix::remove_stale(path).map_err(failed)?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile::new(path.clone());
    Ok(HostEnd::Unix { listener: listener.into(), file })
}

#[cfg(test)]
mod tests;
