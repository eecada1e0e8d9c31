//! Notifications: an eventfd for each queue, registered at its address while the device is active.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::layout::{NOTIFY, NOTIFY_MULTIPLIER};
use crate::event;
use crate::interrupt::{InterruptError, KickRegistry};
use crate::sync::Lock;

/// The notification eventfds of a device.
///
/// They are registered only while the device is active: guests switch memory decoding off and on
/// while they size BARs, and each registration costs the hypervisor a grace period.
pub(super) struct Kicks {
    events: Box<[OwnedFd]>,
    registry: Arc<dyn KickRegistry>,
    registered: Lock<Registered>,
}

#[derive(Debug, Default)]
struct Registered {
    /// Address of the BAR that the present registrations belong to.
    bar: u64,
    queues: Vec<u16>,
}

impl Kicks {
    pub(super) fn new(queues: usize, registry: Arc<dyn KickRegistry>) -> io::Result<Kicks> {
        let events = (0..queues).map(|_| event::new()).collect::<io::Result<_>>()?;
        Ok(Kicks { events, registry, registered: Lock::default() })
    }

    /// A second descriptor of a queue's eventfd.
    pub(super) fn duplicate(&self, queue: u16) -> io::Result<OwnedFd> {
        self.events[usize::from(queue)].try_clone()
    }

    /// Signals a queue: the way for writes that no registration caught.
    pub(super) fn signal(&self, queue: usize) -> io::Result<()> {
        self.events.get(queue).map_or(Ok(()), event::signal)
    }

    /// Registers what `wanted` says: the address of the BAR and the queues, or none. It is asked
    /// with the lock held, so that of two calls the later one decides.
    ///
    /// Where a registration fails, writes arrive at [`Kicks::signal`] instead, which is slower and
    /// works; the first failure is returned.
    pub(super) fn update(
        &self,
        wanted: impl FnOnce() -> Option<(u64, Vec<u16>)>,
    ) -> Result<(), InterruptError> {
        let mut registered = self.registered.lock();
        let (bar, queues) = wanted().unwrap_or_default();
        if bar == registered.bar && queues == registered.queues {
            return Ok(());
        }
        let mut result = Ok(());
        for queue in std::mem::take(&mut registered.queues) {
            let address = address_of(registered.bar, queue);
            let event = &self.events[usize::from(queue)];
            result = result.and(self.registry.unregister(borrow(event), address));
        }
        registered.bar = bar;
        for queue in queues {
            let event = &self.events[usize::from(queue)];
            match self.registry.register(borrow(event), address_of(bar, queue)) {
                Ok(()) => registered.queues.push(queue),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }
}

impl Drop for Kicks {
    fn drop(&mut self) {
        if let Err(error) = self.update(|| None) {
            log::debug!("unregistering notifications: {error}");
        }
    }
}

fn borrow(event: &OwnedFd) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(event)
}

fn address_of(bar: u64, queue: u16) -> u64 {
    bar.wrapping_add(NOTIFY + u64::from(queue) * u64::from(NOTIFY_MULTIPLIER))
}
