//! The pvpanic device: one port where a guest's kernel says that it has crashed.

use std::sync::Arc;

use super::{AfterPanic, MachineEvent, MachineEvents};
use crate::bus::BusDevice;

/// The guest has crashed and stopped.
const PANICKED: u8 = 1;
/// The guest has crashed and runs its crash kernel.
const CRASH_LOADED: u8 = 2;
/// The guest wants to be powered off.
const SHUTDOWN: u8 = 4;

/// The pvpanic device.
pub struct Pvpanic {
    events: Arc<dyn MachineEvents>,
}

impl std::fmt::Debug for Pvpanic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pvpanic").finish_non_exhaustive()
    }
}

impl Pvpanic {
    /// A device that reports to `events`.
    pub fn new(events: Arc<dyn MachineEvents>) -> Pvpanic {
        Pvpanic { events }
    }
}

impl BusDevice for Pvpanic {
    /// What the device understands.
    fn read(&self, _offset: u64, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = PANICKED | CRASH_LOADED | SHUTDOWN;
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        let Some(bits) = data.first().copied() else {
            return;
        };
        // The gravest one counts; guests write one bit at a time.
        let event = if bits & PANICKED != 0 {
            MachineEvent::GuestPanic { then: AfterPanic::Stopped }
        } else if bits & CRASH_LOADED != 0 {
            MachineEvent::GuestPanic { then: AfterPanic::CrashKernel }
        } else if bits & SHUTDOWN != 0 {
            MachineEvent::Shutdown
        } else {
            return;
        };
        self.events.report(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MockEvents;

    #[test]
    fn each_bit_is_an_event() {
        let events = Arc::new(MockEvents::default());
        let device = Pvpanic::new(events.clone());
        let mut offered = [0; 4];
        device.read(0, &mut offered);
        assert_eq!(offered[0], 7);
        let panic = |then| vec![MachineEvent::GuestPanic { then }];
        for (bits, expected) in [
            (0, vec![]),
            (1, panic(AfterPanic::Stopped)),
            (2, panic(AfterPanic::CrashKernel)),
            (3, panic(AfterPanic::Stopped)),
            (4, vec![MachineEvent::Shutdown]),
            (0xf8, vec![]),
        ] {
            device.write(0, &[bits]);
            assert_eq!(events.take(), expected, "{bits:#x}");
        }
        device.write(0, &[]);
        device.read(0, &mut []);
    }
}
