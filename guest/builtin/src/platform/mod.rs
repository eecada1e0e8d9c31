//! The machine below the checks: processors, page tables, time, serial line, power.

#[cfg(not(test))]
pub(crate) mod descriptors;
#[cfg(not(test))]
pub(crate) mod exceptions;
#[cfg(not(test))]
pub(crate) mod firmware;
#[cfg(not(test))]
pub(crate) mod heap;
#[cfg(not(test))]
pub(crate) mod intrinsics;
#[cfg(not(test))]
pub(crate) mod lapic;
pub(crate) mod mmio;
#[cfg(not(test))]
pub(crate) mod paging;
#[cfg(not(test))]
pub(crate) mod ports;
#[cfg(not(test))]
pub(crate) mod power;
#[cfg(not(test))]
pub(crate) mod processors;
#[cfg(not(test))]
pub(crate) mod serial;
#[cfg(not(test))]
pub(crate) mod services;
#[cfg(not(test))]
pub(crate) mod term;
#[cfg(not(test))]
pub(crate) mod time;
