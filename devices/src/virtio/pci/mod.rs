//! The virtio-pci transport, modern devices only (virtio 1.3 section 4.1).
//!
//! ```text
//!   BAR 0   0000 common configuration ──► Registers ──► Activate / Reset ──► BackendLink ──► back end
//!           1000 ISR status                   ▲
//!           2000 device configuration         └────── handle_event ◄──────────────────────── back end
//!           3000 notifications ──► Kicks (one eventfd a queue) ───────────────────────────►  back end
//!           4000 MSI-X table ──► Msix (one eventfd a vector) ◄─────────────────────────────  back end
//!           5000 MSI-X pending bits
//! ```
//!
//! vCPU threads run this code. They talk to the back end only by calls with deadlines: a back end
//! that is dead or hangs costs a bounded wait, then the device says `DEVICE_NEEDS_RESET`.
//!
//! Locks, in the order in which they may be taken: `link`, which is held during calls and by vCPU
//! threads only; `kicks`; `config`; `registers`, held for moments. [`VirtioPciDevice::handle_event`]
//! takes the last one only, so that the back end's own thread may run it during a call.

#![forbid(unsafe_code)]

mod capabilities;
mod device;
mod kicks;
mod layout;
mod link;
mod registers;
mod status;

pub use device::{VirtioPciDevice, VirtioPciParts};
pub use link::{Deadlines, Succession};
pub use status::Status;

use crate::pci::PciError;

/// Why a transport could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A device has 1 to 255 queues: a page holds the MSI-X table.
    #[error("a virtio device of {0} queues")]
    QueueCount(usize),
    /// Queue sizes are powers of two up to 32768 (virtio 1.3 section 2.7).
    #[error("queue {index} of a virtio device has {size} entries")]
    QueueSize {
        /// Queue index.
        index: usize,
        /// Size asked for.
        size: u16,
    },
    /// The device configuration space is larger than its page.
    #[error("a virtio device configuration space of {0} bytes")]
    ConfigLength(usize),
    /// Device types are 1 to 63.
    #[error("a virtio device of type {0}")]
    DeviceType(u16),
    /// Eventfds have run out.
    #[error("making the notification eventfds of a virtio device")]
    Eventfd(#[source] std::io::Error),
    /// The PCI side failed.
    #[error("building the PCI function of a virtio device")]
    Pci(#[from] PciError),
}

#[cfg(test)]
mod tests;
