//! The host's side of a virtio function: interrupts and notifications.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use devices::interrupt::{InterruptError, KickRegistry, MsiController, MsiVector};
use rustix::event::{EventfdFlags, eventfd};

/// Interrupts that nobody takes.
pub(super) struct Controller;

struct Vector(OwnedFd);

impl MsiController for Controller {
    fn allocate(&self) -> Result<Box<dyn MsiVector>, InterruptError> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Box::new(Vector(event.expect("an eventfd"))))
    }
}

impl MsiVector for Vector {
    fn trigger(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn set(&self, _: u64, _: u32) -> Result<(), InterruptError> {
        Ok(())
    }

    fn mask(&self) -> Result<(), InterruptError> {
        Ok(())
    }

    fn unmask(&self) -> Result<(), InterruptError> {
        Ok(())
    }
}

/// Addresses of notifications.
#[derive(Clone, Default)]
pub(super) struct Kicks(Arc<Mutex<Vec<u64>>>);

impl Kicks {
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl KickRegistry for Kicks {
    fn register(&self, _: BorrowedFd<'_>, address: u64) -> Result<(), InterruptError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!known.contains(&address), "an address has one kick");
        known.push(address);
        Ok(())
    }

    fn unregister(&self, _: BorrowedFd<'_>, address: u64) -> Result<(), InterruptError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = known.iter().position(|known| *known == address);
        known.swap_remove(index.expect("an address that is known"));
        Ok(())
    }
}
