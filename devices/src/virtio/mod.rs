//! Virtio devices: the message set between a transport and a back end, the virtqueues, the PCI
//! transport and the back ends.
//!
//! A transport ([`pci`]) shows the device to the guest and runs on the vCPU threads. A back end
//! ([`blk`]) moves the data and is an actor of its own, on a thread or in a process. They share
//! nothing but the messages of [`backend`] and the guest's memory.

pub mod backend;
pub mod balloon;
pub mod blk;
pub mod console;
pub mod control;
mod file_lock;
mod file_work;
pub mod fs;
pub mod helpers;
pub mod metrics;
pub mod net;
pub mod p9;
pub mod parts;
pub mod pci;
pub mod pmem;
pub mod queue;
pub mod rng;
mod state_file;
pub mod syncs;
#[cfg(test)]
mod test_bed;
pub mod tracing;
pub mod vhost_user;
pub mod vsock;
pub mod worker;
mod written;
