//! Timers.

pub(crate) mod sleep;
pub(crate) mod wheel;
