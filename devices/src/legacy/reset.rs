//! The reset control register at port 0xCF9.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{MachineEvent, MachineEvents};
use crate::bus::BusDevice;

/// Setting this bit resets the processor.
const RESET_CPU: u8 = 1 << 2;
/// What kind of reset: bits that read back and mean nothing here, since each reset is a full one.
const KIND: u8 = 1 << 1 | 1 << 3;

/// The reset control register.
pub struct ResetRegister {
    kind: AtomicU8,
    events: Arc<dyn MachineEvents>,
}

impl std::fmt::Debug for ResetRegister {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ResetRegister").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl ResetRegister {
    /// A register that reports to `events`.
    pub fn new(events: Arc<dyn MachineEvents>) -> ResetRegister {
        ResetRegister { kind: AtomicU8::new(0), events }
    }
}

impl BusDevice for ResetRegister {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = self.kind.load(Ordering::Relaxed);
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        let Some(value) = data.first().copied() else {
            return;
        };
        self.kind.store(value & KIND, Ordering::Relaxed);
        if value & RESET_CPU != 0 {
            self.events.report(MachineEvent::Reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MockEvents;

    #[test]
    fn only_the_reset_bit_resets() {
        let events = Arc::new(MockEvents::default());
        let register = ResetRegister::new(events.clone());
        let mut value = [0];
        for (written, kind, expected) in
            [(0x02, 2, vec![]), (0x06, 2, vec![MachineEvent::Reset]), (0xfb, 0xa, vec![])]
        {
            register.write(0, &[written]);
            register.read(0, &mut value);
            assert_eq!((value[0], events.take()), (kind, expected));
        }
    }
}
