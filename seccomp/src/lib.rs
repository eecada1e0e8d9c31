//! System call policies: minijail's policy language, checked and compiled to seccomp-BPF.
//!
//! ```text
//!   text ──parse──► Policy (statements with line numbers) ──compile──► Program ──install──► kernel
//!            │                    │
//!     syntax errors       unknown names, repeated calls, rules that can never match
//! ```
//!
//! A policy has one statement per line:
//!
//! ```text
//! # comments, blank lines, and lines continued by a backslash
//! @default trap                       what happens to calls without a rule (else: kill-process)
//! @include ./common.policy            one level deep
//! @frequency ./blk.frequency          lines of `call: count`; frequent calls are tested first
//! read: allow                         also `1`
//! {readv, writev}: allow
//! openat: return ENOENT
//! mmap: arg2 in ~PROT_EXEC || arg3 & MAP_ANONYMOUS
//! ioctl: { arg1 == 0x5401; return ENOTTY, arg1 == 0x5402; allow }
//! ```
//!
//! Arguments are compared as unsigned 64-bit numbers. `argN & M` is true when any bit of `M` is
//! set, `argN in M` when no bit outside `M` is.

#![forbid(unsafe_code)]

mod arch;
mod bpf;
mod compile;
mod constants;
mod error;
mod lexer;
mod parser;
mod policy;

pub use arch::Arch;
pub use bpf::{Program, Verdict};
pub use compile::{Options, Unmatched, compile};
pub use error::{Error, Problem};
pub use parser::{Includes, NoIncludes, parse};
pub use policy::{Action, Atom, Clause, Operator, Policy, Rule, Statement};
