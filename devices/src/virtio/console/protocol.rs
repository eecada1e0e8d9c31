//! What driver and device say to each other (virtio 1.3 section 5.3).

use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Virtio device type of a console.
pub(super) const DEVICE_TYPE: u16 = 3;

pub(super) const FEATURE_SIZE: u64 = 1 << 0;
pub(super) const FEATURE_MULTIPORT: u64 = 1 << 1;

/// The size of a terminal's window, in characters. Zero says that nobody knows.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    Serialize,
    Deserialize,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct WindowSize {
    /// Characters of a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

impl WindowSize {
    pub(super) fn is_known(self) -> bool {
        self != Self::default()
    }
}

/// The configuration space without the fields that belong to no offered feature (virtio 1.3 section
/// 5.3.4).
#[derive(Debug, Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct Config {
    window: WindowSize,
    max_nr_ports: u32,
}

pub(super) fn config(window: WindowSize, ports: usize) -> Vec<u8> {
    Config { window, max_nr_ports: ports as u32 }.as_bytes().to_vec()
}

/// A message of the control queues (virtio 1.3 section 5.3.6.2). Text or a size may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Message {
    pub(super) port: u32,
    pub(super) event: u16,
    pub(super) value: u16,
}

pub(super) const MESSAGE_BYTES: usize = size_of::<Message>();
const _: () = assert!(MESSAGE_BYTES == 8);

pub(super) mod event {
    pub(in super::super) const DEVICE_READY: u16 = 0;
    pub(in super::super) const PORT_ADD: u16 = 1;
    pub(in super::super) const PORT_READY: u16 = 3;
    pub(in super::super) const CONSOLE_PORT: u16 = 4;
    pub(in super::super) const RESIZE: u16 = 5;
    pub(in super::super) const PORT_OPEN: u16 = 6;
    pub(in super::super) const PORT_NAME: u16 = 7;
}

/// What a queue is for (virtio 1.3 section 5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueRole {
    /// To the driver, of this port.
    Receive(usize),
    /// From the driver, of this port.
    Transmit(usize),
    /// Messages to the driver.
    ControlReceive,
    /// Messages from the driver.
    ControlTransmit,
}

impl QueueRole {
    pub(super) fn of(index: u16) -> Self {
        let index = usize::from(index);
        match index {
            0 => Self::Receive(0),
            1 => Self::Transmit(0),
            2 => Self::ControlReceive,
            3 => Self::ControlTransmit,
            _ if index.is_multiple_of(2) => Self::Receive(index / 2 - 1),
            _ => Self::Transmit(index / 2 - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_have_their_places() {
        let roles = (0..8).map(QueueRole::of).collect::<Vec<_>>();
        assert_eq!(
            roles,
            [
                QueueRole::Receive(0),
                QueueRole::Transmit(0),
                QueueRole::ControlReceive,
                QueueRole::ControlTransmit,
                QueueRole::Receive(1),
                QueueRole::Transmit(1),
                QueueRole::Receive(2),
                QueueRole::Transmit(2),
            ]
        );
    }

    #[test]
    fn the_configuration_space_has_its_fields_in_place() {
        let window = WindowSize { columns: 0x0102, rows: 0x0304 };
        assert_eq!(config(window, 5), [2, 1, 4, 3, 5, 0, 0, 0]);
    }
}
