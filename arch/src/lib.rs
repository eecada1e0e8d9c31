//! What a machine of one processor architecture looks like to the software that boots on it.
//!
//! Pure functions from a description (memory size, number of processors, a kernel file, a command
//! line) to plain data: where memory is, which bytes lie at which guest address before the first
//! instruction, and what the registers hold. Nothing here touches a hypervisor, guest memory or a
//! device; the only input it reads is the kernel file it is handed.
//!
//! ```text
//!  kernel file ──▶ kernel::KernelImage ─┐
//!  memory size ──▶ layout::Ram ─────────┼──▶ boot::BootPlan   (bytes, initrd place, registers)
//!  command line, initrd length ─────────┘
//!  processors, windows, ports ──▶ acpi, smbios                (bytes)
//!  what the host offers ────────▶ cpuid, msrs                 (per processor)
//! ```
//!
//! Each architecture is a module of its own; what they share is in [`memory`] and [`mod@file`].

#![forbid(unsafe_code)]

pub mod file;
pub mod memory;
pub mod x86_64;

pub use file::KernelFile;
pub use memory::{Blob, GuestAddress, GuestRange};
