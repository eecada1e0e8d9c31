//! The files that the bar is for: those that read what a guest, or a front end, wrote.
//!
//! Beside them in the same folders is what makes a device of options, opens files and words of errors: no input
//! of a guest decides what runs there.

/// Files that belong together.
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) folder: &'static str,
    pub(super) files: &'static [&'static str],
}

/// Percent of the lines of each part that inputs have to reach.
pub(super) const BAR: f64 = 90.0;

const fn part(name: &'static str, folder: &'static str, files: &'static [&'static str]) -> Part {
    Part { name, folder, files }
}

/// All of them: the virtqueues, then each device.
pub(super) const PARTS: &[Part] = &[
    part(
        "virtqueues",
        "devices/src/virtio/queue",
        &[
            "mod.rs",
            "split.rs",
            "packed/mod.rs",
            "packed/ring.rs",
            "packed/record.rs",
            "packed/cursor.rs",
            "chain.rs",
            "buffers.rs",
            "inflight.rs",
            "host.rs",
        ],
    ),
    part("blk", "devices/src/virtio/blk", &["protocol.rs", "request.rs", "server.rs"]),
    part(
        "net",
        "devices/src/virtio/net",
        &[
            "protocol.rs",
            "header.rs",
            "control.rs",
            "filter.rs",
            "offload.rs",
            "transmit.rs",
            "receive.rs",
            "receive/wanted.rs",
            "receive/slot.rs",
        ],
    ),
    part(
        "vsock",
        "devices/src/virtio/vsock",
        &[
            "protocol.rs",
            "server.rs",
            "hub.rs",
            "connection.rs",
            "credit.rs",
            "table.rs",
            "transmit.rs",
            "outgoing.rs",
            "receive.rs",
            "greeting.rs",
        ],
    ),
    part(
        "console",
        "devices/src/virtio/console",
        &["protocol.rs", "control.rs", "transmit.rs", "batch.rs", "receive.rs", "port.rs"],
    ),
    part("rng", "devices/src/virtio/rng", &["mod.rs"]),
    part(
        "balloon",
        "devices/src/virtio/balloon",
        &["protocol.rs", "frames.rs", "pages.rs", "statistics.rs", "inquiry.rs"],
    ),
    part(
        "fs",
        "devices/src/virtio/fs",
        &["protocol.rs", "request.rs", "names.rs", "server.rs", "session.rs", "answer.rs"],
    ),
    part("pmem", "devices/src/virtio/pmem", &["protocol.rs", "flush.rs"]),
    part(
        "virtio-pci",
        "devices/src/virtio/pci",
        &["device.rs", "registers.rs", "link.rs", "kicks.rs", "capabilities.rs", "status.rs"],
    ),
    part("pci", "devices/src/pci", &["config.rs", "root.rs", "msix.rs"]),
    part(
        "vhost-user",
        "devices/src/virtio/vhost_user",
        &[
            "message.rs",
            "wire.rs",
            "connection.rs",
            "requests.rs",
            "rings.rs",
            "regions.rs",
            "session.rs",
        ],
    ),
];
