//! Mocks for tests of this crate.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::event;
use crate::interrupt::{InterruptError, IrqLine, KickRegistry, MsiController, MsiVector};
use crate::legacy::{Clock, MachineEvent, MachineEvents};
use crate::sync::Lock;

/// What the interrupt controller was told about one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct VectorView {
    pub(crate) attached: bool,
    pub(crate) message: Option<(u64, u32)>,
    pub(crate) calls: u32,
}

/// An interrupt controller that records.
#[derive(Default, Clone)]
pub(crate) struct MockMsi {
    vectors: Arc<Lock<Vec<Arc<MockVectorState>>>>,
}

struct MockVectorState {
    trigger: OwnedFd,
    view: Lock<VectorView>,
}

struct MockVector(Arc<MockVectorState>);

impl MockMsi {
    pub(crate) fn view(&self, index: usize) -> VectorView {
        *self.vectors.lock()[index].view.lock()
    }

    /// Takes the interrupts that an attached vector has delivered.
    pub(crate) fn take_delivered(&self, index: usize) -> bool {
        let vector = self.vectors.lock()[index].clone();
        let attached = vector.view.lock().attached;
        let signalled = attached && event::is_signalled(&vector.trigger).unwrap();
        if signalled {
            event::drain(&vector.trigger).unwrap();
        }
        signalled
    }
}

impl MsiController for MockMsi {
    fn allocate(&self) -> Result<Box<dyn MsiVector>, InterruptError> {
        let trigger = event::new().map_err(InterruptError::Allocate)?;
        let state = Arc::new(MockVectorState { trigger, view: Lock::default() });
        self.vectors.lock().push(state.clone());
        Ok(Box::new(MockVector(state)))
    }
}

impl MsiVector for MockVector {
    fn trigger(&self) -> BorrowedFd<'_> {
        self.0.trigger.as_fd()
    }

    fn set(&self, address: u64, data: u32) -> Result<(), InterruptError> {
        let mut view = self.0.view.lock();
        view.message = Some((address, data));
        view.calls += 1;
        Ok(())
    }

    fn mask(&self) -> Result<(), InterruptError> {
        let mut view = self.0.view.lock();
        assert!(view.attached, "masked twice");
        view.attached = false;
        view.calls += 1;
        Ok(())
    }

    fn unmask(&self) -> Result<(), InterruptError> {
        let mut view = self.0.view.lock();
        assert!(!view.attached, "unmasked twice");
        assert!(view.message.is_some(), "unmasked without a message");
        view.attached = true;
        view.calls += 1;
        Ok(())
    }
}

/// Notification addresses: which descriptor is signalled at which address.
#[derive(Default, Clone)]
pub(crate) struct MockKicks {
    registered: Arc<Lock<BTreeMap<u64, i32>>>,
}

impl MockKicks {
    pub(crate) fn addresses(&self) -> Vec<u64> {
        self.registered.lock().keys().copied().collect()
    }
}

impl KickRegistry for MockKicks {
    fn register(&self, kick: BorrowedFd<'_>, address: u64) -> Result<(), InterruptError> {
        let existing = self.registered.lock().insert(address, kick.as_raw_fd());
        if existing.is_some() {
            let source = io::ErrorKind::AlreadyExists.into();
            return Err(InterruptError::Kick { address, source });
        }
        Ok(())
    }

    fn unregister(&self, kick: BorrowedFd<'_>, address: u64) -> Result<(), InterruptError> {
        let removed = self.registered.lock().remove(&address);
        assert_eq!(removed, Some(kick.as_raw_fd()), "unregistered what was not registered");
        Ok(())
    }
}

/// A line that counts its edges.
#[derive(Default)]
pub(crate) struct MockLine {
    edges: Lock<u32>,
}

impl MockLine {
    /// Edges since the last call.
    pub(crate) fn take(&self) -> u32 {
        std::mem::take(&mut self.edges.lock())
    }
}

impl IrqLine for MockLine {
    fn trigger(&self) {
        *self.edges.lock() += 1;
    }
}

/// Machine events that were reported.
#[derive(Default)]
pub(crate) struct MockEvents {
    reported: Lock<Vec<MachineEvent>>,
}

impl MockEvents {
    /// Events since the last call.
    pub(crate) fn take(&self) -> Vec<MachineEvent> {
        std::mem::take(&mut self.reported.lock())
    }
}

impl MachineEvents for MockEvents {
    fn report(&self, event: MachineEvent) {
        self.reported.lock().push(event);
    }
}

/// A clock that stands still until it is set; wall and monotonic time are the same.
#[derive(Default)]
pub(crate) struct MockClock {
    now: Lock<Duration>,
}

impl MockClock {
    pub(crate) fn set(&self, now: Duration) {
        *self.now.lock() = now;
    }
}

impl Clock for MockClock {
    fn wall(&self) -> Duration {
        *self.now.lock()
    }

    fn monotonic(&self) -> Duration {
        *self.now.lock()
    }
}
