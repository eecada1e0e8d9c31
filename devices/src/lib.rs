//! Devices of the machine: guest memory, buses, PCI, the virtio transport, virtio back ends and
//! the legacy devices of a PC.
//!
//! ```text
//!   vCPU exits ──► bus ──► legacy            (serial, CMOS, i8042, pvpanic, ACPI PM ...)
//!                   └────► pci ──► virtio::pci ──BackendRequest──► back end (virtio::blk ...)
//!                                      ▲──────────BackendEvent────────┘
//! ```
//!
//! Nothing here knows which hypervisor runs the vCPUs: [`interrupt`] holds the traits that whoever
//! owns it implements.

pub mod bus;
pub mod dead_holder;
pub mod interrupt;
pub mod legacy;
pub mod memory;
pub mod pci;
pub mod rate_limit;
pub mod simulation;
pub mod virtio;

mod event;
mod log_limit;
mod sync;
#[cfg(test)]
mod testing;
