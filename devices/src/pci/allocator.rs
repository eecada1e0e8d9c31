//! Addresses for BARs, chosen before the guest runs: there is no firmware to do it.

use super::{BarKind, PciError};

/// A range of guest physical addresses that the PCI bus answers at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First address.
    pub base: u64,
    /// Number of addresses.
    pub length: u64,
}

/// Chooses addresses for BARs, first fit, naturally aligned.
#[derive(Debug)]
pub struct BarAllocator {
    low: Space,
    high: Space,
}

impl BarAllocator {
    /// `low` lies below 4 GiB, `high` above.
    pub fn new(low: Window, high: Window) -> BarAllocator {
        BarAllocator { low: Space::new(low), high: Space::new(high) }
    }

    /// An address for a BAR of `size` bytes. 64-bit BARs go below 4 GiB when there is no room above.
    pub fn allocate(&mut self, kind: BarKind, size: u64) -> Result<u64, PciError> {
        let found = match kind {
            BarKind::Memory32 => self.low.allocate(size),
            BarKind::Memory64 => self.high.allocate(size).or_else(|| self.low.allocate(size)),
        };
        found.ok_or(PciError::NoAddressSpace { size })
    }

    /// Takes an allocation back.
    pub fn free(&mut self, address: u64) {
        self.low.free(address);
        self.high.free(address);
    }
}

#[derive(Debug)]
struct Space {
    window: Window,
    /// Address and size of what is taken, ascending.
    taken: Vec<(u64, u64)>,
}

impl Space {
    fn new(window: Window) -> Space {
        Space { window, taken: Vec::new() }
    }

    fn allocate(&mut self, size: u64) -> Option<u64> {
        if !size.is_power_of_two() {
            return None;
        }
        let end = self.window.base.checked_add(self.window.length)?;
        let mut candidate = self.window.base.checked_next_multiple_of(size)?;
        let mut index = 0;
        for &(address, length) in &self.taken {
            if candidate.checked_add(size)? <= address {
                break;
            }
            candidate = (address + length).checked_next_multiple_of(size)?.max(candidate);
            index += 1;
        }
        if candidate.checked_add(size)? > end {
            return None;
        }
        self.taken.insert(index, (candidate, size));
        Some(candidate)
    }

    fn free(&mut self, address: u64) {
        self.taken.retain(|(taken, _)| *taken != address);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOW: Window = Window { base: 0xc000_0000, length: 0x10_0000 };
    const HIGH: Window = Window { base: 0x80_0000_0000, length: 0x4_0000 };

    #[test]
    fn a_64_bit_bar_falls_back_below_4_gib() {
        let mut allocator = BarAllocator::new(LOW, HIGH);
        assert_eq!(allocator.allocate(BarKind::Memory64, 0x4_0000).unwrap(), HIGH.base);
        assert_eq!(allocator.allocate(BarKind::Memory64, 0x1000).unwrap(), LOW.base);
        allocator.free(HIGH.base);
        assert_eq!(allocator.allocate(BarKind::Memory64, 0x1000).unwrap(), HIGH.base);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let mut allocator = BarAllocator::new(LOW, HIGH);
        for size in [0, 3, 0x20_0000, 1 << 63] {
            allocator.allocate(BarKind::Memory32, size).unwrap_err();
            allocator.allocate(BarKind::Memory64, size).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn allocations_are_aligned_inside_and_disjoint(
            steps in proptest::collection::vec((4_u32..20, any::<bool>(), any::<prop::sample::Index>()), 1..60)
        ) {
            let mut allocator = BarAllocator::new(LOW, HIGH);
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (order, free, index) in steps {
                if free && !live.is_empty() {
                    let (address, _) = live.swap_remove(index.index(live.len()));
                    allocator.free(address);
                    continue;
                }
                let size = 1_u64 << order;
                let Ok(address) = allocator.allocate(BarKind::Memory32, size) else { continue };
                prop_assert_eq!(address % size, 0);
                prop_assert!(address >= LOW.base && address + size <= LOW.base + LOW.length);
                for (other, length) in &live {
                    prop_assert!(address + size <= *other || other + length <= address);
                }
                live.push((address, size));
            }
        }
    }
}
