//! How often the bed booted, restored, failed to and ran out of time. A hang that shows once in a
//! hundred runs is a bug; this is where it is seen.

use std::fmt;
use std::fs;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::project;

/// What is counted.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    ColdBoot,
    Restore,
    /// A saved host did not come up.
    FailedRestore,
    /// A boot or a command took longer than allowed.
    Timeout,
}

/// Totals since the bed's folder was made.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    cold_boots: u64,
    restores: u64,
    failed_restores: u64,
    timeouts: u64,
}

impl Counts {
    /// The totals now.
    pub(crate) fn load() -> Self {
        fs::read(file())
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// What happened since an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            cold_boots: self.cold_boots.saturating_sub(earlier.cold_boots),
            restores: self.restores.saturating_sub(earlier.restores),
            failed_restores: self.failed_restores.saturating_sub(earlier.failed_restores),
            timeouts: self.timeouts.saturating_sub(earlier.timeouts),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} cold boots, {} restores, {} failed restores, {} timeouts",
            self.cold_boots, self.restores, self.failed_restores, self.timeouts
        )
    }
}

/// Several hosts of this process count in one file.
static COUNTING: Mutex<()> = Mutex::new(());

/// Counts one event.
pub(crate) fn add(event: Event) -> Result<()> {
    let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut counts = Counts::load();
    match event {
        Event::ColdBoot => counts.cold_boots += 1,
        Event::Restore => counts.restores += 1,
        Event::FailedRestore => counts.failed_restores += 1,
        Event::Timeout => counts.timeouts += 1,
    }
    fs::write(file(), serde_json::to_vec(&counts)?)?;
    Ok(())
}

fn file() -> std::path::PathBuf {
    project::bed().join("counts.json")
}
