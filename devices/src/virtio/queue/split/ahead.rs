//! What hides the way between two processors: a line of memory that the driver wrote takes as long to come as a hundred
//! instructions, and a request has three of them one behind the other.

use std::sync::atomic::Ordering;

use super::super::host::{
    DESCRIPTOR_INDIRECT, HostArray, RawDescriptor, prefetch, prefetch_for_write,
};
use super::{RING, SplitQueue};
use crate::memory::GuestAddress;

impl SplitQueue {
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
        // A status is often beside the header.
        let first = first.and_then(|address| self.memory.host_range(GuestAddress(address), 1));
        if let Some(place) = first {
            prefetch_for_write(place.as_ptr());
        }
    }
}
