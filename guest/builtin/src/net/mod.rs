//! virtio-net (section 5.1), driven by polling.

pub(crate) mod frame;
#[cfg(not(test))]
pub(crate) mod load;
#[cfg(not(test))]
pub(crate) mod nic;
#[cfg(not(test))]
pub(crate) mod pair;
pub(crate) mod tally;
