//! The `vmm` library.

pub mod config;
pub mod error;
pub mod outcome;
