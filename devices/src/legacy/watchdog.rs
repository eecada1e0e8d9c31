//! A watchdog: it fires unless the guest shows in time that it lives. The ACPI table WDAT describes it.
//!
//! ```text
//!   0  control    bit 0: it runs
//!   4  timeout    in periods of 100 ms
//!   8  countdown  periods that are left; writing anything starts it again
//!  12  status     bit 0: it has fired, and the machine went on; writing clears it
//! ```
//!
//! Each register is a double word. Nothing runs here, as with the clock of the CMOS: whoever owns timers
//! asks [`Watchdog::due`] and calls [`Watchdog::run_timer`]. While a machine is paused the watchdog
//! stands still.

use std::sync::Arc;
use std::time::Duration;

use super::{Clock, MachineEvent, MachineEvents};
use crate::bus::BusDevice;
use crate::sync::Lock;

/// Ports that it takes.
pub const PORTS: u64 = 16;
/// Most periods of a timeout: 27 minutes.
pub const MAX_PERIODS: u32 = 0x3fff;
/// Fewest periods: a second.
pub const MIN_PERIODS: u32 = 10;
/// Milliseconds of a period.
pub const PERIOD_MS: u32 = 100;

const CONTROL: u64 = 0;
const TIMEOUT: u64 = 4;
const COUNTDOWN: u64 = 8;
const STATUS: u64 = 12;
/// The bit of the control register: it runs.
const RUNNING: u32 = 1;
/// The bit of the status register: it has fired.
const FIRED: u32 = 1;
/// What a driver finds that does not choose.
const DEFAULT_PERIODS: u32 = 300;

/// What a watchdog needs.
pub struct WatchdogParts {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who is told that it fires.
    pub events: Arc<dyn MachineEvents>,
    /// Called when [`Watchdog::due`] has another answer.
    pub due_changed: Box<dyn Fn() + Send + Sync>,
}

/// The watchdog.
pub struct Watchdog {
    parts: WatchdogParts,
    state: Lock<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    count: Count,
    periods: u32,
    fired: bool,
    machine: Machine,
}

/// Where the countdown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    Stopped,
    /// It fires at this time of the monotonic clock.
    Until(Duration),
    /// The machine is paused with so much left.
    Left(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machine {
    Running,
    Paused,
}

impl State {
    fn timeout(self) -> Duration {
        Duration::from_millis(u64::from(self.periods) * u64::from(PERIOD_MS))
    }

    fn start(&mut self, now: Duration) {
        self.count = match self.machine {
            Machine::Running => Count::Until(now + self.timeout()),
            Machine::Paused => Count::Left(self.timeout()),
        };
    }

    fn left(self, now: Duration) -> Duration {
        match self.count {
            Count::Stopped => self.timeout(),
            Count::Until(due) => due.saturating_sub(now),
            Count::Left(left) => left,
        }
    }
}

impl std::fmt::Debug for Watchdog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Watchdog").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Watchdog {
    /// A watchdog that does not run.
    pub fn new(parts: WatchdogParts) -> Self {
        let state = State {
            count: Count::Stopped,
            periods: DEFAULT_PERIODS,
            fired: false,
            machine: Machine::Running,
        };
        Self { parts, state: Lock::new(state) }
    }

    /// How long until it fires.
    pub fn due(&self) -> Option<Duration> {
        let state = *self.state.lock();
        matches!(state.count, Count::Until(_)).then(|| state.left(self.parts.clock.monotonic()))
    }

    /// Fires if it is time.
    pub fn run_timer(&self) {
        let mut state = self.state.lock();
        if matches!(state.count, Count::Until(due) if due <= self.parts.clock.monotonic()) {
            state.count = Count::Stopped;
            state.fired = true;
            drop(state);
            self.parts.events.report(MachineEvent::Watchdog);
        }
    }

    /// The machine is paused: nothing counts until it goes on.
    pub fn pause(&self) {
        self.change(|state, now| {
            state.machine = Machine::Paused;
            if state.count != Count::Stopped {
                state.count = Count::Left(state.left(now));
            }
        });
    }

    /// The machine goes on.
    pub fn resume(&self) {
        self.change(|state, now| {
            state.machine = Machine::Running;
            if let Count::Left(left) = state.count {
                state.count = Count::Until(now + left);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State, Duration)) {
        let now = self.parts.clock.monotonic();
        let mut state = self.state.lock();
        let before = state.count;
        change(&mut state, now);
        if state.count != before {
            drop(state);
            (self.parts.due_changed)();
        }
    }
}

impl BusDevice for Watchdog {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let now = self.parts.clock.monotonic();
        let state = *self.state.lock();
        let value = match offset {
            CONTROL if state.count != Count::Stopped => RUNNING,
            TIMEOUT => state.periods,
            COUNTDOWN => (state.left(now).as_millis() as u32).div_ceil(PERIOD_MS),
            STATUS if state.fired => FIRED,
            _ => 0,
        };
        let bytes = value.to_le_bytes();
        let length = data.len().min(bytes.len());
        data[..length].copy_from_slice(&bytes[..length]);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let Ok(bytes) = data.try_into() else {
            // Drivers write whole registers, as the table says.
            return;
        };
        let value = u32::from_le_bytes(bytes);
        self.change(|state, now| match offset {
            CONTROL if value & RUNNING == 0 => state.count = Count::Stopped,
            // One that runs goes on as it is.
            CONTROL if state.count == Count::Stopped => state.start(now),
            TIMEOUT => state.periods = value.clamp(MIN_PERIODS, MAX_PERIODS),
            COUNTDOWN if state.count != Count::Stopped => state.start(now),
            STATUS => state.fired = false,
            _ => {}
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{MockClock, MockEvents};

    struct Bed {
        watchdog: Watchdog,
        clock: Arc<MockClock>,
        events: Arc<MockEvents>,
    }

    fn bed() -> Bed {
        let (clock, events) = (Arc::new(MockClock::default()), Arc::new(MockEvents::default()));
        let parts = WatchdogParts {
            clock: clock.clone(),
            events: events.clone(),
            due_changed: Box::new(|| {}),
        };
        Bed { watchdog: Watchdog::new(parts), clock, events }
    }

    impl Bed {
        fn read(&self, offset: u64) -> u32 {
            let mut data = [0; 4];
            self.watchdog.read(offset, &mut data);
            u32::from_le_bytes(data)
        }

        fn write(&self, offset: u64, value: u32) {
            self.watchdog.write(offset, &value.to_le_bytes());
        }

        /// What it says at that time, in milliseconds.
        fn at(&self, ms: u64) -> Vec<MachineEvent> {
            self.clock.set(Duration::from_millis(ms));
            self.watchdog.run_timer();
            self.events.take()
        }
    }

    #[test]
    fn it_fires_once_when_nobody_shows_life() {
        let bed = bed();
        assert!(bed.at(1 << 30).is_empty() && bed.watchdog.due().is_none());
        bed.clock.set(Duration::ZERO);
        bed.write(TIMEOUT, 50);
        bed.write(CONTROL, RUNNING);
        assert_eq!((bed.read(CONTROL), bed.read(TIMEOUT), bed.read(COUNTDOWN)), (1, 50, 50));
        assert_eq!(bed.watchdog.due(), Some(Duration::from_secs(5)));
        assert!(bed.at(4999).is_empty());
        assert_eq!(bed.read(COUNTDOWN), 1);
        bed.write(COUNTDOWN, 0);
        assert!(bed.at(9998).is_empty());
        assert_eq!(bed.at(9999), [MachineEvent::Watchdog]);
        assert!(bed.at(99999).is_empty());
        assert_eq!((bed.read(CONTROL), bed.read(STATUS)), (0, 1));
        bed.write(STATUS, 1);
        assert_eq!(bed.read(STATUS), 0);
    }

    #[test]
    fn it_can_be_stopped_and_stands_still_in_pauses() {
        let bed = bed();
        bed.write(CONTROL, RUNNING);
        bed.write(CONTROL, 0);
        bed.write(COUNTDOWN, 0);
        assert!(bed.watchdog.due().is_none() && bed.at(1 << 30).is_empty());
        bed.clock.set(Duration::ZERO);
        bed.write(CONTROL, RUNNING);
        bed.at(10_000);
        bed.watchdog.pause();
        assert!(bed.watchdog.due().is_none() && bed.at(1 << 20).is_empty());
        assert_eq!(bed.read(COUNTDOWN), 200);
        bed.watchdog.resume();
        assert_eq!(bed.watchdog.due(), Some(Duration::from_secs(20)));
        bed.watchdog.pause();
        bed.write(COUNTDOWN, 0);
        bed.watchdog.resume();
        assert_eq!(bed.watchdog.due(), Some(Duration::from_secs(30)));
    }

    #[test]
    fn nonsense_is_ignored_or_cut_to_what_can_be() {
        let bed = bed();
        for (periods, expected) in [(0, MIN_PERIODS), (u32::MAX, MAX_PERIODS), (77, 77)] {
            bed.write(TIMEOUT, periods);
            assert_eq!(bed.read(TIMEOUT), expected);
        }
        for length in [0, 1, 2, 3, 5, 8] {
            bed.watchdog.write(CONTROL, &vec![0xff; length]);
        }
        for offset in 0..PORTS + 4 {
            bed.watchdog.read(offset, &mut [0; 8]);
            bed.watchdog.read(offset, &mut []);
            if !offset.is_multiple_of(4) {
                bed.write(offset, u32::MAX);
            }
        }
        assert_eq!((bed.read(CONTROL), bed.read(TIMEOUT)), (0, 77));
    }
}
