//! The watchdog.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// As what it counts that the watchdog fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchdogAction {
    /// As a reset by the guest.
    #[default]
    Reset,
    /// As its power-off.
    Shutdown,
    /// As a panic of its kernel.
    Panic,
}
