//! Queue notifications that never leave the kernel: KVM writes an eventfd when the guest writes
//! a notify address.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use devices::interrupt::{InterruptError, KickRegistry};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};

use super::{error::io_error, eventfd};

/// Registers notify addresses of device BARs with KVM.
#[derive(Debug, Clone)]
pub struct Ioeventfds {
    vm: Arc<VmFd>,
}

impl Ioeventfds {
    pub(super) fn new(vm: Arc<VmFd>) -> Self {
        Self { vm }
    }
}

impl KickRegistry for Ioeventfds {
    // Without a data match KVM takes writes of any length (a "wildcard" ioeventfd), which is
    // right here: each queue has a notify address of its own, so the value written says nothing.
    fn register(&self, kick: BorrowedFd<'_>, address: u64) -> Result<(), InterruptError> {
        eventfd::lend(kick, |fd| {
            self.vm.register_ioevent(fd, &IoEventAddress::Mmio(address), NoDatamatch)
        })
        .map_err(|error| InterruptError::Kick { address, source: io_error(error) })
    }

    fn unregister(&self, kick: BorrowedFd<'_>, address: u64) -> Result<(), InterruptError> {
        eventfd::lend(kick, |fd| {
            self.vm.unregister_ioevent(fd, &IoEventAddress::Mmio(address), NoDatamatch)
        })
        .map_err(|error| InterruptError::Kick { address, source: io_error(error) })
    }
}
