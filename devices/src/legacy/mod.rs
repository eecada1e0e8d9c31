//! The devices of a PC that every guest expects, at fixed ports.
//!
//! Each is a [`BusDevice`](crate::bus::BusDevice). What they need from outside comes in by traits and
//! values: interrupt lines ([`IrqLine`](crate::interrupt::IrqLine)), time ([`Clock`]), the place for
//! output ([`SerialOutput`](output::SerialOutput)). What they have to say about the whole machine
//! is a [`MachineEvent`].

#![forbid(unsafe_code)]

pub mod acpi_pm;
pub mod cmos;
pub mod debugcon;
pub mod i8042;
pub mod output;
pub mod pvpanic;
pub mod reset;
pub mod serial;
pub mod watchdog;

use std::time::{Duration, Instant, SystemTime};

use ipc::{Sender, TrySendError};
use serde::{Deserialize, Serialize};

/// What a device has to say about the whole machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MachineEvent {
    /// The guest asked for a reset.
    Reset,
    /// The guest powered the machine off.
    Shutdown,
    /// The guest did not show the watchdog in time that it lives.
    Watchdog,
    /// The guest's kernel says that it has crashed.
    GuestPanic {
        /// What it does now.
        then: AfterPanic,
    },
}

/// What a guest does after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AfterPanic {
    /// Nothing: it has stopped.
    Stopped,
    /// A crash kernel is about to run and should be left alone.
    CrashKernel,
}

/// Who wants to know of [`MachineEvent`]s. Called on vCPU threads; must not block.
pub trait MachineEvents: Send + Sync {
    /// Takes an event.
    fn report(&self, event: MachineEvent);
}

impl MachineEvents for Sender<MachineEvent> {
    fn report(&self, event: MachineEvent) {
        match self.try_send(event) {
            // When the channel is full, whoever reads it has events enough to act on.
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(error) => log::warn!("nobody listens to machine event {event:?}: {error}"),
        }
    }
}

/// Time as devices see it.
pub trait Clock: Send + Sync {
    /// Since the Unix epoch.
    fn wall(&self) -> Duration;
    /// Since some moment in the past, never going back.
    fn monotonic(&self) -> Duration;
}

/// The host's clocks.
#[derive(Debug, Clone, Copy)]
pub struct HostClock {
    start: Instant,
}

impl Default for HostClock {
    fn default() -> HostClock {
        HostClock { start: Instant::now() }
    }
}

impl Clock for HostClock {
    fn wall(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
