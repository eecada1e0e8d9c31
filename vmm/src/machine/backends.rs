//! The virtio devices of the machine: their back ends, and their transports on the PCI bus.

use std::sync::Arc;

use devices::memory::GuestMemory;
use devices::pci::PciRoot;
use devices::virtio::backend::BackendEvent;
use devices::virtio::pci::VirtioPciDevice;
use ipc::Receiver;

use super::Error;
use crate::config::MachineConfig;
use crate::kvm::Vm;

/// A virtio device in its place.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) transport: Arc<VirtioPciDevice>,
    pub(super) events: Receiver<BackendEvent>,
}

/// A disk whose file is open and locked.
#[derive(Debug)]
pub(super) struct OpenDisk {}

/// Opens all disks.
pub(super) fn open_disks(_config: &MachineConfig) -> Result<Vec<OpenDisk>, Error> {
    Ok(Vec::new())
}

/// Starts the back ends and puts the devices on the bus.
pub(super) fn start(
    _disks: Vec<OpenDisk>,
    _vm: &Vm,
    _memory: &GuestMemory,
    _root: &PciRoot,
) -> Result<Vec<Attached>, Error> {
    Ok(Vec::new())
}
