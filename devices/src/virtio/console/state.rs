//! What the driver knows and was told, kept outside the back end's process.
//!
//! A driver says once that a port is open. When a back end dies, its successor goes on with the same
//! queues and has to know: it is written to a file in memory of the VMM whenever it changes, with a
//! plain `pwrite`; that is rare.
//!
//! The file may have been written by a hostile process. Whatever its bits are, they are a state that
//! a driver could have brought about.

use std::io;

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::MAX_PORTS;
use super::protocol::WindowSize;

const MAGIC: u32 = 0x636f_6e01;

/// The state of one port.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(super) struct PortState {
    /// Bytes of the oldest buffer in flight that have reached the host's end.
    pub(super) written: u32,
    /// Whether the driver has the port: not zero.
    pub(super) ready: u8,
    /// Whether somebody in the guest has it open: not zero.
    pub(super) open: u8,
    /// [`Owed`](super::port::Owed) as bits.
    pub(super) owed: u8,
    pub(super) reserved: u8,
}

/// The state of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ConsoleState {
    magic: u32,
    pub(super) window: WindowSize,
    pub(super) ports: [PortState; MAX_PORTS],
}

impl ConsoleState {
    pub(super) fn new(window: WindowSize) -> Self {
        Self { magic: MAGIC, window, ports: [PortState::default(); MAX_PORTS] }
    }
}

/// A file that holds a [`ConsoleState`], or nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StateFile(ipc::Fd);

impl StateFile {
    pub(super) fn create() -> io::Result<Self> {
        let file = rustix::fs::memfd_create("console-state", MemfdFlags::CLOEXEC)?;
        Ok(Self(ipc::Fd::new(file)))
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    pub(super) fn store(&self, state: &ConsoleState) -> io::Result<()> {
        let written = rustix::io::pwrite(&self.0, state.as_bytes(), 0)?;
        if written == size_of::<ConsoleState>() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// None if it holds nothing that makes sense.
    pub(super) fn load(&self) -> Option<ConsoleState> {
        let mut bytes = [0; size_of::<ConsoleState>()];
        let read = rustix::io::pread(&self.0, &mut bytes, 0).ok()?;
        let state = ConsoleState::read_from_bytes(&bytes).ok()?;
        (read == bytes.len() && state.magic == MAGIC).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_as_it_was_and_garbage_does_not() {
        let file = StateFile::create().unwrap();
        assert_eq!(file.load(), None);
        let mut state = ConsoleState::new(WindowSize { columns: 80, rows: 25 });
        state.ports[3] = PortState { written: 7, ready: 1, open: 1, owed: 2, reserved: 0 };
        file.store(&state).unwrap();
        assert_eq!(file.try_clone().unwrap().load(), Some(state));
        rustix::io::pwrite(&file.0, &[2], 0).unwrap();
        assert_eq!(file.load().map(|state| state.window), None);
        rustix::fs::ftruncate(&file.0, 20).unwrap();
        assert_eq!(file.load(), None);
    }
}
