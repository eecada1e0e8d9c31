//! Whatever a guest, a process in a sandbox, a client, a peer on the network or a file can say, as
//! functions of bytes.
//!
//! ```text
//!   corpus/NAME/* ──► tests/corpus.rs: each input, and some that differ a little    (cargo test)
//!        ▲        └─► libfuzzer/: as many as there is time for            (cargo xtask fuzz)
//!        └── what that finds
//! ```
//!
//! A target may do anything but panic, hang, or take memory without bound. [`TARGETS`] is the list of
//! them; another one is a function and a line there.

#![forbid(unsafe_code)]

mod agents;
mod back_ends;
mod descriptions;
mod files;
mod guest;
mod limits;
mod packets;
mod pci;
mod policies;
mod rings;
mod script;
mod vhost_user;

/// Something that reads bytes of others.
#[derive(Debug)]
pub struct Target {
    /// What it is called, and where its inputs are: `corpus/NAME`.
    pub name: &'static str,
    /// What reads the bytes, and whose they are.
    pub about: &'static str,
    /// Reads them.
    pub run: fn(&[u8]),
}

/// All there are.
pub const TARGETS: &[Target] = &[
    Target { name: "split", about: "split rings of a guest", run: rings::split },
    Target { name: "packed", about: "packed rings of a guest", run: rings::packed },
    Target {
        name: "split-differential",
        about: "split rings, read as rust-vmm's virtio-queue reads them",
        run: rings::differential,
    },
    Target { name: "blk", about: "what a guest does with a disk", run: back_ends::blk },
    Target { name: "net", about: "what a guest and a network do", run: back_ends::net },
    Target { name: "vsock", about: "what a guest does with sockets", run: back_ends::vsock },
    Target { name: "console", about: "what a guest does with a console", run: back_ends::console },
    Target { name: "balloon", about: "what a guest does with a balloon", run: back_ends::balloon },
    Target { name: "rng", about: "what a guest does with entropy", run: back_ends::rng },
    Target {
        name: "pmem",
        about: "what a guest does with persistent memory",
        run: back_ends::pmem,
    },
    Target { name: "fs", about: "what a guest does with a shared directory", run: back_ends::fs },
    Target { name: "fuse", about: "FUSE requests", run: packets::fuse },
    Target { name: "pci", about: "configuration space and registers of a guest", run: pci::pci },
    Target { name: "vhost-user", about: "messages of a front end", run: vhost_user::front_end },
    Target { name: "kernel", about: "kernel files: ELF, bzImage", run: files::kernel },
    Target { name: "core", about: "core dumps of a guest's programs", run: files::core },
    Target { name: "modules", about: "tables of kernel modules", run: files::modules },
    Target { name: "vm-toml", about: "descriptions of machines", run: descriptions::machine },
    Target {
        name: "control",
        about: "requests to a machine, and its answers",
        run: descriptions::control,
    },
    Target { name: "policy", about: "seccomp policies", run: policies::policy },
    Target { name: "link", about: "shared memory of a sandboxed process", run: packets::link },
    Target { name: "p9", about: "9P2000.L messages", run: packets::p9 },
    Target { name: "agent-frames", about: "frames of a host and an agent", run: agents::frames },
    Target { name: "agent-texts", about: "logs, tables and lines of a guest", run: agents::texts },
    Target { name: "agent-calls", about: "HTTP/2 of a host and an agent", run: agents::calls },
];

/// The one of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
