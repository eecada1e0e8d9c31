//! How long a load lasts.

use super::{serial, time};

/// Ends the load that goes on when it is typed on the serial line.
const END_KEY: u8 = b'q';
/// A look at the serial line is an exit: what few of them cost cannot be seen in a load's figures.
const LOOK_EVERY_MILLISECONDS: u64 = 100;

/// A time, which a key ends earlier.
pub(crate) struct Term {
    end: u64,
    next_look: u64,
}

impl Term {
    pub(crate) fn new(start: u64, milliseconds: u64) -> Self {
        let end = start.saturating_add(time::counts_of_milliseconds(milliseconds));
        Self { end, next_look: start }
    }

    #[inline]
    pub(crate) fn is_over(&mut self, now: u64) -> bool {
        if now >= self.next_look {
            self.next_look = now + time::counts_of_milliseconds(LOOK_EVERY_MILLISECONDS);
            if serial::typed() == Some(END_KEY) {
                self.end = now;
            }
        }
        now >= self.end
    }
}
