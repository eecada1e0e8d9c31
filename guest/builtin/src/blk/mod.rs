//! virtio-blk (section 5.2), driven by polling.

#[cfg(not(test))]
pub(crate) mod disk;
pub(crate) mod latency;
#[cfg(not(test))]
pub(crate) mod load;
pub(crate) mod pattern;
pub(crate) mod pauses;
pub(crate) mod plan;
