//! The built-in guest: a bare-metal program that checks the machine it runs on and reports over the
//! serial line. `vmm run` without a kernel boots it.
//!
//! ```text
//! loader ─> ring 0 (entry.s): page tables, descriptors, SSE ─> ring 3: ring3_main ─> checks ─> report
//!                 ^                                               │                              │
//!                 └── halt, CPUID, exceptions <───────────────────┘         power off / panic <──┘
//! ```
//!
//! Nearly all of it runs in ring 3, because some monitors emulate ring 0 of a guest, slowly and with
//! instructions missing, and run ring 3 on the bare processor. Port and memory-mapped I/O leave ring 3
//! for the monitor directly. Interrupts stay masked; devices are polled.
//!
//! Under `cargo test` only the pure parts are compiled, for the host.
#![cfg_attr(not(test), no_std, no_main)]
#![cfg_attr(test, allow(dead_code))]

extern crate alloc;

mod acpi;
mod blk;
mod boot_params;
#[cfg(not(test))]
mod checks;
mod cmdline;
mod net;
#[cfg(not(test))]
mod pci;
mod platform;
#[cfg(not(test))]
mod report;
mod text;
mod virtio;

#[cfg(not(test))]
mod run;
