//! Timers.

pub(crate) mod instant;
pub(crate) mod sleep;
#[cfg(test)]
mod tests;
pub(crate) mod wheel;
