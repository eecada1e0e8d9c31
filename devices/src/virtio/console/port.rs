//! One port: its host's end, and what driver and device have told each other of it.

use std::cell::Cell;
use std::io;

use bitflags::bitflags;
use executor::Fd;
use serde::{Deserialize, Serialize};

use super::MAX_NAME_BYTES;
use super::failure::ConsoleError;
use super::state::PortState;

/// What a port is to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortRole {
    /// A terminal: `hvc0` in Linux.
    Console,
    /// A stream of bytes with a name: `/dev/virtio-ports/NAME`.
    Named(String),
}

impl PortRole {
    /// Whether a guest could find it.
    pub fn check(&self) -> Result<(), ConsoleError> {
        let Self::Named(name) = self else { return Ok(()) };
        let printable = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        // A folder holds links of these names.
        let usable = printable && !matches!(name.as_str(), "." | "..");
        if usable && (1..=MAX_NAME_BYTES).contains(&name.len()) {
            Ok(())
        } else {
            Err(ConsoleError::Name { name: name.clone() })
        }
    }
}

/// Where a port ends on the host.
#[derive(Debug, Serialize, Deserialize)]
pub enum PortEnd {
    /// Nowhere: output is thrown away and there is no input.
    Null,
    /// A file or pipe that output is written to.
    Output(ipc::Fd),
    /// A socket for both ways, which must not block.
    Both(ipc::Fd),
}

impl PortEnd {
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Null => Self::Null,
            Self::Output(fd) => Self::Output(fd.try_clone()?),
            Self::Both(fd) => Self::Both(fd.try_clone()?),
        })
    }
}

bitflags! {
    /// Messages that the driver has to get of a port. It gets them in this order.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Owed: u8 {
        /// That there is the port.
        const ADD = 1 << 0;
        /// That it is a console.
        const CONSOLE = 1 << 1;
        /// Its name.
        const NAME = 1 << 2;
        /// That the host has it open.
        const OPEN = 1 << 3;
        /// The size of its window.
        const RESIZE = 1 << 4;
    }
}

/// A port that is served.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) role: PortRole,
    pub(super) input: Option<Fd>,
    pub(super) output: Option<Fd>,
    /// The host's end gives no more.
    pub(super) input_ended: Cell<bool>,
    /// The host's end takes no more: output is thrown away.
    pub(super) output_ended: Cell<bool>,
    /// The driver has the port and wants to hear of it.
    pub(super) ready: Cell<bool>,
    /// Somebody in the guest has it open.
    pub(super) open: Cell<bool>,
    pub(super) owed: Cell<Owed>,
    /// Bytes of the oldest transmit buffer in flight that have reached the host's end.
    pub(super) written: Cell<u32>,
    pub(super) output_state: Cell<OutputState>,
}

/// What there is to be transmitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum OutputState {
    /// Nothing: no queue is served.
    #[default]
    Unserved,
    /// Something, perhaps.
    Busy,
    /// Nothing for now.
    Idle,
}

impl Port {
    pub(super) fn new(role: PortRole, end: PortEnd) -> io::Result<Self> {
        let (input, output) = match end {
            PortEnd::Null => (None, None),
            PortEnd::Output(fd) => (None, Some(Fd::new(fd)?)),
            PortEnd::Both(fd) => {
                let fd = Fd::new(fd)?;
                (Some(fd.clone()), Some(fd))
            }
        };
        Ok(Self {
            role,
            input,
            output,
            input_ended: Cell::new(false),
            output_ended: Cell::new(false),
            ready: Cell::new(false),
            open: Cell::new(false),
            owed: Cell::new(Owed::empty()),
            written: Cell::new(0),
            output_state: Cell::default(),
        })
    }

    pub(super) fn owe(&self, owed: Owed) {
        self.owed.set(self.owed.get() | owed);
    }

    pub(super) fn state(&self) -> PortState {
        PortState {
            written: self.written.get(),
            ready: self.ready.get().into(),
            open: self.open.get().into(),
            owed: self.owed.get().bits(),
            reserved: 0,
        }
    }

    pub(super) fn set_state(&self, state: PortState) {
        self.written.set(state.written);
        self.ready.set(state.ready != 0);
        self.open.set(state.open != 0);
        self.owed.set(Owed::from_bits_truncate(state.owed));
    }
}
