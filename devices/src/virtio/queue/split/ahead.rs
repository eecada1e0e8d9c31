//! What hides the way between two processors: a line of memory that the driver wrote takes as long to come as a hundred
//! instructions, and a request has three of them one behind the other.

use std::sync::atomic::Ordering;

use super::super::host::{DESCRIPTOR_INDIRECT, HostArray, RawDescriptor};
use super::{RING, SplitQueue};
use crate::memory::{GuestAddress, prefetch};

impl SplitQueue {
    /// Have the place brought near where the driver will say what it makes available next.
    #[inline]
    pub(in super::super) fn expect(&self) {
        self.available.prefetch(RING + usize::from(self.next_available & (self.size - 1)));
    }

    /// Have the beginning of what was just made available brought near, while whoever takes it gets ready to. Nothing
    /// of it is believed.
    #[inline]
    pub(in super::super) fn bring_near(&self) {
        let slot = usize::from(self.next_available & (self.size - 1));
        let head = usize::from(self.available.atomic(RING + slot).load(Ordering::Relaxed));
        if head < self.descriptors.length() {
            self.memory.prefetch_for_write(GuestAddress(self.descriptors.read(head).address));
        }
    }

    /// Have what the next pops look at brought near. From a head to its data it takes three steps: the buffers behind
    /// this one are one step further each time. Nothing of it is believed.
    #[inline]
    pub(super) fn look_ahead(&self) {
        let waiting = self.seen_available.wrapping_sub(self.next_available);
        let head = |ahead: u16| {
            let slot = usize::from(self.next_available.wrapping_add(ahead) & (self.size - 1));
            usize::from(self.available.atomic(RING + slot).load(Ordering::Relaxed))
        };
        let descriptor = |ahead: u16| {
            let head = head(ahead);
            (waiting > ahead && head < self.descriptors.length())
                .then(|| self.descriptors.read(head))
                .map(|descriptor| (descriptor.address, descriptor.flags & DESCRIPTOR_INDIRECT != 0))
        };
        self.used_ring.prefetch_for_write(usize::from(self.next_used & (self.size - 1)));
        if waiting > 2 {
            self.descriptors.prefetch(head(2));
        }
        if let Some((table, true)) = descriptor(1)
            && let Some(place) = self.memory.host_range(GuestAddress(table), 1)
        {
            prefetch(place.as_ptr());
        }
        let first = descriptor(0).and_then(|(address, indirect)| {
            if !indirect {
                return Some(address);
            }
            // SAFETY: the array is used only here, while `self` holds the memory.
            let table = unsafe { HostArray::<RawDescriptor>::resolve(&self.memory, address, 1) };
            table.map(|table| table.read(0).address)
        });
        if let Some(address) = first {
            self.memory.prefetch_for_write(GuestAddress(address));
        }
    }
}
