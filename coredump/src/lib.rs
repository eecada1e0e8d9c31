//! Core dumps of Linux as minidumps: what is needed to say where a program crashed, and no more.
//!
//! ```text
//!   kernel ──pipe──▶ headers ─▶ notes: registers, signal, files ─▶ segments: memory
//!                                        │                            │ only stacks are kept
//!                                        ▼                            ▼
//!                    minidump: threads, exception, modules with build ids, stacks
//! ```
//!
//! A core dump is read once, from its beginning, as a pipe gives it, and may be larger than all memory. It
//! is written by the kernel, but what is in it is the program's: everything is bounded and checked.
#![forbid(unsafe_code)]

mod core;
mod elf;
mod memory;
mod minidump;
mod modules;
mod notes;
mod thread;

use std::io::{self, Read};

use crate::core::Reason;

/// What the system knows of a process beside its core dump. All of it may be empty.
#[derive(Debug, Default, Clone, Copy)]
pub struct About<'a> {
    /// Its number.
    pub pid: u32,
    /// Seconds since 1970.
    pub time: u32,
    /// The kernel, as `uname` says it.
    pub kernel: &'a str,
    /// How many processors there are.
    pub processors: u8,
    /// Threads by their numbers.
    pub thread_names: &'a [(u32, String)],
    /// `/proc/cpuinfo`.
    pub cpuinfo: &'a [u8],
    /// `/proc/PID/status`.
    pub status: &'a [u8],
    /// `/proc/PID/cmdline`.
    pub cmdline: &'a [u8],
    /// `/proc/PID/maps`.
    pub maps: &'a [u8],
}

/// A crash.
#[derive(Debug)]
pub struct Crash {
    /// The thread that crashed.
    pub thread: u32,
    /// The signal that ended the process.
    pub signal: u32,
    /// What kind of it (`si_code`).
    pub code: i32,
    /// The address that could not be used, if the signal has one, else where the thread was.
    pub address: u64,
    /// The minidump.
    pub minidump: Vec<u8>,
}

/// Why there is no minidump.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The core dump ends, or cannot be read.
    #[error("cannot read the core dump: {0}")]
    Read(#[from] io::Error),
    /// It is something else.
    #[error("the core dump is not one of a 64-bit x86 program")]
    Format,
    /// It has more than a program can have.
    #[error("the core dump has too many {0}")]
    TooMany(&'static str),
    /// Nothing says who crashed.
    #[error("the core dump has no threads")]
    NoThreads,
    /// The minidump would be larger than its format allows.
    #[error("cannot write the minidump: {0}")]
    Write(#[from] scroll::Error),
}

/// Reads a core dump as far as it is needed, and makes a minidump of at most [`MAX_BYTES`].
pub fn convert(core: impl Read, about: &About<'_>) -> Result<Crash, Error> {
    let process = core::read(core)?;
    let crashed = process.threads.first().ok_or(Error::NoThreads)?;
    let Reason { signal, code, address } = process.reason(crashed);
    let minidump = minidump::write(&process, about)?;
    Ok(Crash { thread: crashed.id, signal, code, address, minidump })
}

/// The largest minidump that is made: stacks, threads and modules at their limits come to less.
pub const MAX_BYTES: usize = 4 << 20;
