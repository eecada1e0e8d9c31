//! What the session keeps of each ring, and where whoever serves it next begins.
//!
//! ```text
//!            start                       stop: what it says
//!   At(n) ───────────► AsUsed ───────────────────────────────► At(n)
//!                        │  ▲
//!                        └──┘ start of a successor: behind what is in the used ring
//! ```

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{EventfdFlags, eventfd};

use super::super::front_end::{FrontEnd, FrontEndError};
use super::failure::Failure;
use crate::memory::{GuestAddress, GuestMemory};
use crate::virtio::backend::{QueueSetup, QueueState, RingPosition};
use crate::virtio::queue::QueueLayout;

/// A queue, and where whoever serves it next begins.
pub(super) struct Ring {
    pub(super) setup: QueueSetup,
    base: Base,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    /// Nothing is in flight.
    At(u16),
    /// Somebody serves it, or has died doing so: behind what was given back.
    AsUsed,
}

impl Ring {
    pub(super) fn new(setup: QueueSetup) -> Self {
        let base = match setup.state.map(|state| state.position) {
            Some(RingPosition::Split { next_available, .. }) => Base::At(next_available),
            _ => Base::At(0),
        };
        Self { setup, base }
    }

    /// Has it served from where it stands.
    pub(super) fn start(
        &mut self,
        front_end: &mut FrontEnd,
        memory: &GuestMemory,
    ) -> Result<(), Failure> {
        let Self { setup, base } = self;
        let at = match *base {
            Base::At(at) => at,
            Base::AsUsed => {
                index_of(memory, setup.used_ring).ok_or(Failure::NoMemory(setup.index))?
            }
        };
        let layout = QueueLayout::from(&*setup);
        // Some back ends end if they cannot say what nobody wants to hear.
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let nobody = eventfd(0, flags).map_err(std::io::Error::from)?;
        let call = setup.call.as_ref().map_or(nobody.as_fd(), AsFd::as_fd);
        front_end.start_ring(setup.index, &layout, at, setup.kick.as_fd(), call)?;
        if *base == Base::AsUsed {
            // Whoever died may have taken a kick without looking, or published without saying so.
            signal(setup.kick.as_fd());
            signal(call);
        }
        *base = Base::AsUsed;
        Ok(())
    }

    /// Has what is in flight carried out and no more taken.
    pub(super) fn stop(&mut self, front_end: &mut FrontEnd) -> Result<(), FrontEndError> {
        // A split ring's index has 16 bits.
        self.base = Base::At(front_end.stop_ring(self.setup.index)? as u16);
        Ok(())
    }

    /// Where it stands.
    pub(super) fn state(&self, memory: &GuestMemory) -> QueueState {
        let at = match self.base {
            Base::At(at) => at,
            Base::AsUsed => index_of(memory, self.setup.used_ring).unwrap_or(0),
        };
        let position = RingPosition::Split { next_available: at, next_used: at };
        QueueState { index: self.setup.index, position }
    }

    /// Whether somebody who died may have had some of it in flight.
    pub(super) fn is_lost(&self, memory: &GuestMemory) -> bool {
        let available = index_of(memory, self.setup.available_ring);
        self.base == Base::AsUsed && available != index_of(memory, self.setup.used_ring)
    }
}

/// `idx` of either ring (virtio 1.3 sections 2.7.6 and 2.7.8).
fn index_of(memory: &GuestMemory, ring: u64) -> Option<u16> {
    let at = GuestAddress(ring).checked_add(2)?;
    memory.read_obj::<u16>(at).ok().map(u16::from_le)
}

fn signal(event: BorrowedFd<'_>) {
    // A counter that is full is as good.
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
}
