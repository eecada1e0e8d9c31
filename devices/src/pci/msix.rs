//! MSI-X: the table of messages, the pending bits, and the three masks (PCI Local Bus 3.0 section
//! 6.8.2).
//!
//! ```text
//!   enable ─┐
//!   function mask ─┼─► attached? ── yes: eventfd ► interrupt controller
//!   vector mask ───┘              └ no: the eventfd keeps the count, shown as the pending bit
//! ```

use std::os::fd::BorrowedFd;

use super::{BarIndex, PciError};
use crate::event;
use crate::interrupt::{InterruptError, MsiController, MsiVector};
use crate::log_limit::LogLimit;
use crate::sync::Lock;

/// Capability identifier.
pub const MSIX_CAPABILITY_ID: u8 = 0x11;
/// Bytes of a table entry: message address (8), message data (4), vector control (4).
pub const MSIX_ENTRY_BYTES: u64 = 16;
/// As many as the table size field can say.
const MAX_VECTORS: usize = 2048;

/// Message control: MSI-X enable.
const CONTROL_ENABLE: u16 = 1 << 15;
/// Message control: all vectors are masked.
const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
/// Vector control: this vector is masked.
const VECTOR_MASKED: u32 = 1;
/// Messages are double words at double word addresses.
const ADDRESS_MASK: u32 = !0b11;

/// Where the table and the pending bits lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsixLocation {
    /// The BAR of both.
    pub bar: BarIndex,
    /// Offset of the table in the BAR; a multiple of 8.
    pub table: u32,
    /// Offset of the pending bits in the BAR; a multiple of 8.
    pub pending: u32,
}

/// The MSI-X vectors of a function.
pub struct Msix {
    vectors: Box<[Box<dyn MsiVector>]>,
    state: Lock<State>,
    log: LogLimit,
}

struct State {
    control: u16,
    entries: Box<[Entry]>,
}

#[derive(Clone, Copy)]
struct Entry {
    /// Address low and high, data, vector control.
    words: [u32; 4],
    /// The eventfd is attached to the interrupt controller.
    attached: bool,
    /// The interrupt controller does not know the present message.
    stale: bool,
}

/// As after a reset.
const RESET_ENTRY: Entry = Entry { words: [0, 0, 0, VECTOR_MASKED], attached: false, stale: true };

impl std::fmt::Debug for Msix {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Msix").field("vectors", &self.vectors.len()).finish_non_exhaustive()
    }
}

impl Msix {
    /// Allocates `count` vectors, disabled and masked.
    pub fn new(controller: &dyn MsiController, count: usize) -> Result<Msix, PciError> {
        if count == 0 || count > MAX_VECTORS {
            return Err(PciError::VectorCount(count));
        }
        let vectors =
            (0..count).map(|_| controller.allocate()).collect::<Result<_, InterruptError>>()?;
        let entries = vec![RESET_ENTRY; count].into();
        let state = Lock::new(State { control: 0, entries });
        Ok(Msix { vectors, state, log: LogLimit::new() })
    }

    /// Number of vectors.
    pub fn count(&self) -> usize {
        self.vectors.len()
    }

    /// The capability's body and write mask, for [`super::PciConfig::add_capability`].
    pub fn capability(&self, location: MsixLocation) -> ([u8; 10], [u8; 2]) {
        let bar = u32::from(location.bar.get());
        let mut body = [0; 10];
        body[0..2].copy_from_slice(&(self.vectors.len() as u16 - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(location.table | bar).to_le_bytes());
        body[6..10].copy_from_slice(&(location.pending | bar).to_le_bytes());
        (body, (CONTROL_ENABLE | CONTROL_FUNCTION_MASK).to_le_bytes())
    }

    /// The eventfd of a vector. It stays the same whatever the guest does to the masks.
    pub fn trigger_fd(&self, vector: u16) -> Option<BorrowedFd<'_>> {
        self.vectors.get(usize::from(vector)).map(|vector| vector.trigger())
    }

    /// Interrupts, or becomes pending while masked. Unknown vectors do nothing.
    pub fn trigger(&self, vector: u16) {
        if let Some(fd) = self.trigger_fd(vector)
            && let Err(error) = event::signal(fd)
        {
            self.log.warn(format_args!("MSI-X vector {vector}: signalling its eventfd: {error}"));
        }
    }

    /// The guest wrote the message control word.
    pub fn set_control(&self, control: u16) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.control, control);
        if before == control {
            return;
        }
        if control & !before & CONTROL_ENABLE != 0 {
            // What was signalled while MSI-X was off was never an interrupt.
            for vector in &self.vectors {
                if let Err(error) = event::drain(vector.trigger()) {
                    self.log.warn(format_args!("MSI-X: draining an eventfd: {error}"));
                }
            }
        }
        for index in 0..state.entries.len() {
            self.update(&mut state, index);
        }
    }

    /// Reads from the table.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        let state = self.state.lock();
        for (address, byte) in (offset..).zip(data) {
            let entry = state.entries.get((address / MSIX_ENTRY_BYTES) as usize);
            *byte = entry.map_or(0, |entry| {
                entry.words[(address / 4 % 4) as usize].to_le_bytes()[(address % 4) as usize]
            });
        }
    }

    /// Writes to the table: aligned double words and quad words, as the specification demands of
    /// software; anything else is ignored.
    pub fn write_table(&self, offset: u64, data: &[u8]) {
        let words = match data.len() {
            4 if offset.is_multiple_of(4) => 1,
            8 if offset.is_multiple_of(8) => 2,
            _ => return,
        };
        let index = (offset / MSIX_ENTRY_BYTES) as usize;
        let first = (offset / 4 % 4) as usize;
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(index) else {
            return;
        };
        for (word, bytes) in entry.words[first..first + words].iter_mut().zip(data.chunks(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        entry.words[0] &= ADDRESS_MASK;
        entry.words[3] &= VECTOR_MASKED;
        // A write to the control word alone leaves the message as it is.
        entry.stale |= first < 3;
        self.update(&mut state, index);
    }

    /// Reads from the pending bit array.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        let state = self.state.lock();
        for (address, byte) in (offset..).zip(data) {
            *byte = 0;
            for bit in 0..8 {
                let pending = address
                    .checked_mul(8)
                    .and_then(|first| usize::try_from(first + bit).ok())
                    .is_some_and(|index| self.is_pending(&state, index));
                *byte |= u8::from(pending) << bit;
            }
        }
    }

    fn is_pending(&self, state: &State, index: usize) -> bool {
        let (Some(entry), Some(vector)) = (state.entries.get(index), self.vectors.get(index))
        else {
            return false;
        };
        let enabled = state.control & CONTROL_ENABLE != 0;
        enabled && !entry.attached && event::is_signalled(vector.trigger()).unwrap_or(false)
    }

    /// Makes the interrupt controller agree with the registers of one vector.
    fn update(&self, state: &mut State, index: usize) {
        let open = state.control & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK) == CONTROL_ENABLE;
        let entry = &mut state.entries[index];
        let wanted = open && entry.words[3] & VECTOR_MASKED == 0;
        if let Err(error) = entry.apply(&*self.vectors[index], wanted) {
            self.log.warn(format_args!("MSI-X vector {index}: {}", ErrorChain(&error)));
        }
    }
}

impl Entry {
    /// On an error the flags say how far it got, and the next update tries the rest again.
    fn apply(&mut self, vector: &dyn MsiVector, wanted: bool) -> Result<(), InterruptError> {
        if !wanted {
            if self.attached {
                vector.mask()?;
                self.attached = false;
            }
            return Ok(());
        }
        if self.stale {
            let address = u64::from(self.words[1]) << 32 | u64::from(self.words[0]);
            vector.set(address, self.words[2])?;
            self.stale = false;
        }
        if !self.attached {
            vector.unmask()?;
            self.attached = true;
        }
        Ok(())
    }
}

/// An error with its causes on one line.
struct ErrorChain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for ErrorChain<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
