//! The format of virtqueues.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The formats of virtqueues that devices offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RingFormat {
    /// Both; Linux takes packed ones.
    #[default]
    Packed,
    /// Split ones only.
    Split,
}
