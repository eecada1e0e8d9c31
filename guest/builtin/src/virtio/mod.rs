//! Drivers for virtio devices (virtio 1.3) that poll: no interrupt is ever asked for.

#[cfg(test)]
mod model;
pub(crate) mod packed;
pub(crate) mod queue;
pub(crate) mod split;
#[cfg(not(test))]
pub(crate) mod transport;

/// Feature bits that are the same for all devices (section 6).
pub(crate) mod feature {
    pub(crate) const INDIRECT_DESC: u64 = 1 << 28;
    pub(crate) const EVENT_IDX: u64 = 1 << 29;
    pub(crate) const VERSION_1: u64 = 1 << 32;
    pub(crate) const RING_PACKED: u64 = 1 << 34;
}

/// The virtio device type of a network card.
pub(crate) const TYPE_NET: u16 = 1;
/// The virtio device type of a block device.
pub(crate) const TYPE_BLOCK: u16 = 2;

/// The field's name of a device type (section 5).
pub(crate) fn type_name(device_type: u16) -> &'static str {
    match device_type {
        TYPE_NET => "net",
        TYPE_BLOCK => "blk",
        3 => "console",
        4 => "rng",
        5 => "balloon",
        8 => "scsi",
        9 => "9p",
        16 => "gpu",
        18 => "input",
        19 => "vsock",
        24 => "mem",
        25 => "sound",
        26 => "fs",
        27 => "pmem",
        _ => "other",
    }
}
