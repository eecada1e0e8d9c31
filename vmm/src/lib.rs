//! The `vmm` library.

mod affinity;
pub mod agent_secret;
pub mod bench;
pub mod cases;
pub mod cli;
pub mod config;
pub mod control;
pub mod crashes;
pub mod doctor;
pub mod error;
pub mod exec;
mod folder;
pub mod kvm;
pub mod logs;
pub mod machine;
mod markup;
mod names;
pub mod outcome;
pub mod pstore;
pub mod sandbox;
pub mod serial_port;
pub mod serve_9p;
pub mod signals;
pub mod terminal;
pub mod test;
pub mod trace_view;
pub mod warden;
