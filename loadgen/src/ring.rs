//! A virtqueue over vhost-user, as its driver has it: rings, a kick, an interrupt, and how to wait.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use devices::memory::{GuestAddress, GuestMemory, RegionSpec};
use devices::virtio::queue::RingFeatures;
use devices::virtio::queue::driver::{Kick, SplitDriver};
use devices::virtio::vhost_user::front_end::{FrontEnd, SharedRegion};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::{LoadError, Polling};

/// After how long without a completion a run is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long to keep the processor while looking: a back end that has one of its own answers sooner.
const PROMPT_ANSWER: Duration = Duration::from_micros(4);

/// Looks at a ring for each at the clock.
const LOOKS: u32 = 8;

pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const INDIRECT_DESC: u64 = 1 << 28;

/// The size of a ring that real drivers have. It must not be less than the descriptors of a request, not
/// even where these are in a table of their own.
pub(crate) const USUAL_SIZE: u16 = 128;

/// Agrees on those of the wanted features that a back end offers.
pub(crate) fn agree(front_end: &mut FrontEnd, wanted: u64) -> Result<u64, LoadError> {
    let features = front_end.features()? & wanted;
    if features & VERSION_1 == 0 {
        return Err(LoadError::Unfit("is one from before virtio 1.0".into()));
    }
    front_end.set_features(features)?;
    Ok(features)
}

/// Memory that is shared with a back end, from address 0 on.
pub(crate) fn share_memory(
    front_end: &mut FrontEnd,
    length: u64,
) -> Result<GuestMemory, LoadError> {
    let file = memfd_create("load", MemfdFlags::CLOEXEC);
    let file = file.map_err(|errno| system("make memory", errno))?;
    ftruncate(&file, length).map_err(|errno| system("make memory", errno))?;
    let file = Arc::new(file);
    let region = RegionSpec { base: GuestAddress(0), length, file: file.clone(), file_offset: 0 };
    let memory = GuestMemory::new(vec![region]);
    let memory =
        memory.map_err(|error| LoadError::Unfit(format!("cannot be given memory: {error}")))?;
    front_end.set_memory(&[SharedRegion {
        guest: 0,
        size: length,
        file: file.as_fd(),
        offset: 0,
    }])?;
    Ok(memory)
}

/// The connection, whichever thread asks; none leaves it in the middle of a message.
pub(crate) fn locked(front_end: &Mutex<FrontEnd>) -> MutexGuard<'_, FrontEnd> {
    front_end.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A queue that is served.
pub(crate) struct Ring {
    pub(crate) driver: SplitDriver,
    kick: OwnedFd,
    call: OwnedFd,
    /// How long to look before sleeping.
    spin: Duration,
}

impl Ring {
    /// Lays rings of so many descriptors out at `base` and has them served.
    pub(crate) fn start(
        front_end: &Mutex<FrontEnd>,
        memory: &GuestMemory,
        index: u16,
        (base, size): (u64, u16),
        features: u64,
        polling: Polling,
    ) -> Result<Self, LoadError> {
        let driver = SplitDriver::new(memory, base, size, RingFeatures::from_bits(features));
        let event = |flags| eventfd(0, EventfdFlags::CLOEXEC | flags);
        let kick = event(EventfdFlags::empty()).map_err(|errno| system("make an event", errno))?;
        let call = event(EventfdFlags::NONBLOCK).map_err(|errno| system("make an event", errno))?;
        let layout = driver.layout();
        locked(front_end).start_ring(index, &layout, 0, kick.as_fd(), call.as_fd())?;
        Ok(Self { driver, kick, call, spin: polling.spin() })
    }

    /// Lets the device see what was added.
    pub(crate) fn publish(&mut self) -> Result<(), LoadError> {
        let wanted = self.driver.publish();
        self.kick(wanted)
    }

    /// Lets the device see so many of those that were added, the oldest that it has not seen.
    pub(crate) fn publish_first(&mut self, count: u16) -> Result<(), LoadError> {
        let wanted = self.driver.publish_first(count);
        self.kick(wanted)
    }

    fn kick(&self, wanted: Kick) -> Result<(), LoadError> {
        if wanted == Kick::Wanted {
            rustix::io::write(&self.kick, &1_u64.to_ne_bytes())
                .map_err(|errno| system("kick", errno))?;
        }
        Ok(())
    }

    /// Waits until something came back, until `end` at the latest; gives the time then.
    pub(crate) fn wait(&mut self, end: Instant) -> Result<Instant, LoadError> {
        wait_for_any(std::slice::from_mut(self), end)?;
        Ok(Instant::now())
    }
}

impl AsMut<Ring> for Ring {
    fn as_mut(&mut self) -> &mut Ring {
        self
    }
}

/// Waits until something came back on any of these, which wait alike, until `end` at the latest.
pub(crate) fn wait_for_any(rings: &mut [impl AsMut<Ring>], end: Instant) -> Result<(), LoadError> {
    let spin = rings.first_mut().map_or(Duration::ZERO, |ring| ring.as_mut().spin);
    let begin = Instant::now();
    loop {
        // The clock costs as much as some looks.
        let came = (0..LOOKS).any(|_| {
            let came = rings.iter_mut().any(|ring| ring.as_mut().driver.has_used());
            if !came {
                std::hint::spin_loop();
            }
            came
        });
        if came {
            return Ok(());
        }
        let now = Instant::now();
        if now >= end {
            return Ok(());
        }
        let waited = now - begin;
        if waited > PATIENCE {
            return Err(LoadError::Stuck);
        }
        if waited >= spin {
            break;
        }
        if waited >= PROMPT_ANSWER {
            // Perhaps it is the back end that waits for this processor.
            rustix::thread::sched_yield();
        }
    }
    sleep(rings, end)
}

fn sleep(rings: &mut [impl AsMut<Ring>], end: Instant) -> Result<(), LoadError> {
    // All of them: each has to say that it wants interrupts.
    while !rings
        .iter_mut()
        .fold(false, |came, ring| ring.as_mut().driver.enable_interrupts() | came)
    {
        let now = Instant::now();
        let patience = PATIENCE.min(end.saturating_duration_since(now));
        let calls = rings.iter_mut().map(|ring| PollFd::new(&ring.as_mut().call, PollFlags::IN));
        let timeout = patience.try_into().expect("it is a short time");
        match poll(&mut calls.collect::<Vec<_>>(), Some(&timeout)) {
            Ok(0) if patience < PATIENCE => break,
            Ok(0) => return Err(LoadError::Stuck),
            Ok(_) => {}
            Err(errno) => return Err(system("wait for an interrupt", errno)),
        }
        for ring in rings.iter_mut() {
            // What was signalled is in the rings.
            let _ = rustix::io::read(&ring.as_mut().call, &mut [0; 8]);
        }
    }
    for ring in rings {
        ring.as_mut().driver.disable_interrupts();
    }
    Ok(())
}

pub(crate) fn system(doing: &'static str, errno: rustix::io::Errno) -> LoadError {
    LoadError::System { doing, source: io::Error::from(errno) }
}
