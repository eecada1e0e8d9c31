//! What devices need from whoever owns the interrupt controller and the exits of the vCPUs.
//!
//! A device signals an interrupt by writing an eventfd (an irqfd) and hears of a notification by
//! one (an ioeventfd). Nothing on these paths passes through a thread of ours:
//!
//! ```text
//!   back end ──write──► eventfd ──(attached)──► interrupt controller ──► vCPU
//!                          └─────(masked): the count stays, which is the pending bit
//! ```

use std::io;
use std::os::fd::BorrowedFd;

/// Why an interrupt or a notification could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InterruptError {
    /// Interrupt routes or file descriptors have run out.
    #[error("allocating an interrupt vector")]
    Allocate(#[source] io::Error),
    /// The route of a vector was not changed.
    #[error("routing an interrupt vector to address {address:#x}, data {data:#x}")]
    Route {
        /// Message address.
        address: u64,
        /// Message data.
        data: u32,
        /// What the interrupt controller said.
        #[source]
        source: io::Error,
    },
    /// The eventfd of a vector was not attached or detached.
    #[error("attaching or detaching the eventfd of an interrupt vector")]
    Attach(#[source] io::Error),
    /// A notification address was not registered or unregistered.
    #[error("registering a notification eventfd at guest address {address:#x}")]
    Kick {
        /// Guest address.
        address: u64,
        /// What the hypervisor said.
        #[source]
        source: io::Error,
    },
}

/// Hands out message signalled interrupts.
pub trait MsiController: Send + Sync {
    /// A new vector, masked, without a message.
    fn allocate(&self) -> Result<Box<dyn MsiVector>, InterruptError>;
}

/// One message signalled interrupt with an eventfd that triggers it. Dropping it frees it.
pub trait MsiVector: Send + Sync {
    /// The eventfd; a write to it is an interrupt. It stays the same for the vector's life, and it
    /// does not block (`EFD_NONBLOCK`).
    fn trigger(&self) -> BorrowedFd<'_>;
    /// Sets the message. Takes effect at once when unmasked, else at the next [`MsiVector::unmask`].
    fn set(&self, address: u64, data: u32) -> Result<(), InterruptError>;
    /// Detaches the eventfd from the interrupt controller; writes to it then accumulate.
    fn mask(&self) -> Result<(), InterruptError>;
    /// Routes the message and attaches the eventfd; writes that accumulated inject one interrupt.
    fn unmask(&self) -> Result<(), InterruptError>;
}

/// Signals an eventfd when the guest writes to an address, without an exit to us.
pub trait KickRegistry: Send + Sync {
    /// From now on a write of any length and value to guest physical `address` signals `kick`.
    fn register(&self, kick: BorrowedFd<'_>, address: u64) -> Result<(), InterruptError>;
    /// Takes [`KickRegistry::register`] back.
    fn unregister(&self, kick: BorrowedFd<'_>, address: u64) -> Result<(), InterruptError>;
}

/// The interrupt line of a legacy device, edge triggered.
pub trait IrqLine: Send + Sync {
    /// One rising edge.
    fn trigger(&self);
}
