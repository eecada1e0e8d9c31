//! What the driver knows and was told, as its file has it. Whatever its bits are, they are a state that a
//! driver could have brought about.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::MAX_PORTS;
use super::protocol::WindowSize;
use crate::virtio::state_file::State;

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
    /// Whether the driver has said something: not zero.
    pub(super) heard: u32,
    pub(super) window: WindowSize,
    pub(super) ports: [PortState; MAX_PORTS],
}

impl ConsoleState {
    pub(super) fn new(window: WindowSize) -> Self {
        Self { magic: Self::MAGIC, heard: 0, window, ports: [PortState::default(); MAX_PORTS] }
    }
}

impl State for ConsoleState {
    const NAME: &'static str = "console-state";
    const MAGIC: u32 = 0x636f_6e02;

    fn magic(&self) -> u32 {
        self.magic
    }
}
