//! Named cases that run on a host with a real KVM. Each is a shell script: it passes with status 0
//! and is skipped with status 77, its last line being the reason.
//!
//! A new suite is a file here with a `cases` function, and a line in [`all`].

mod balloon;
mod boot;
mod busy;
mod chaos;
mod consoles;
mod ctl;
mod cycles;
mod ends;
mod exec;
mod fs;
mod fs_programs;
mod host;
mod net;
mod p9;
mod p9_device;
mod pmem;
mod polled;
mod posix;
mod programs;
mod root_dir;
mod threads;
mod traces;
mod vhost_user;
mod vsock;
mod watchdog;

use std::time::Duration;

use crate::bed::later::Later;
use crate::bed::systems::System;

/// Enough for the slowest case on a machine that is busy with something else.
const TIMEOUT: Duration = Duration::from_mins(3);

/// The status by which a script says that it cannot run here.
pub(crate) const SKIPPED: i32 = 77;

/// What every script starts with: functions to run machines and to look at what they said.
const PRELUDE: &str = include_str!("prelude.sh");

/// Where a case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On a host with a real KVM.
    Host,
    /// On this machine: what it shows needs no KVM.
    Here,
}

/// One case.
pub(crate) struct Case {
    /// Its suite and its own name: `boot/vmlinux-1-cpu-256M-disk`.
    pub(crate) name: String,
    script: String,
    pub(crate) timeout: Duration,
    pub(crate) place: Place,
    /// Takes minutes, and runs when it is asked for.
    pub(crate) long: bool,
    /// Packages of crates.io whose programs it runs, `NAME@VERSION`; they are in `$VMM_BED_CRATES`.
    pub(crate) crates: &'static [&'static str],
    /// Programs of a later Debian that it runs; they are in `$VMM_BED_LATER`.
    pub(crate) later: &'static [Later],
    /// Debian systems that it boots; their archives are in `$VMM_BED_SYSTEMS`.
    pub(crate) systems: &'static [System],
}

impl Case {
    fn new(name: impl Into<String>, script: impl Into<String>) -> Self {
        let (name, script) = (name.into(), script.into());
        let (place, long) = (Place::Host, false);
        let (crates, later, systems) = (&[], &[], &[]);
        Self { name, script, timeout: TIMEOUT, place, long, crates, later, systems }
    }

    /// The whole script.
    pub(crate) fn script(&self) -> String {
        format!("{PRELUDE}{}", self.script)
    }
}

/// What takes minutes where the processor is emulated, or repeats with more of the same what a shorter
/// case shows. These run with `--long`, or by name.
const LONG: &[&str] = &[
    "balloon/",
    "busy/",
    "consoles/a-",
    "consoles/debug",
    "consoles/entropy",
    "consoles/hvc0-follows",
    "consoles/hvc0-is",
    "consoles/killed",
    "consoles/paused",
    "consoles/ten",
    "consoles/unbound",
    "cycles/",
    "exec/cases-of-a-file",
    "exec/crashes",
    "exec/fifty-in-one-guest",
    "exec/gibibyte-through-a-port",
    "exec/images-and-folders",
    "exec/large-input",
    "exec/last-words",
    "exec/logs",
    "exec/services",
    "exec/start",
    "exec/thousand-in-a-row",
    "exec/within-three-seconds",
    "fs/cycles",
    "fs/programs",
    "fs/ten-thousand-files",
    "net/addresses-and-links",
    "net/filters",
    "net/four-queue-pairs-and-mtu-9000",
    "net/gibibyte",
    "net/hostile-frames",
    "net/pauses-and-cables",
    "net/survives-kills-under-load-packed",
    "net/tcp-ten-seconds",
    "net/unbound-20-times",
    "net/user-mode",
    "p9/trees-of-files-cached",
    "p9-device/",
    "pmem/dax",
    "pmem/fsync-outlasts-sigkill",
    "pmem/unbound",
    "pmem/writes-to-read-only-memory",
    "vhost-user/consoles",
    "vhost-user/linux-on",
    "vhost-user/passt",
    "vhost-user/virtiofsd",
    "vsock/bytes-both-ways-packed",
    "vsock/gibibyte-both-ways",
    "polled/",
    "posix/",
    "root-dir/",
    "threads/",
    "traces/",
    "vsock/kills",
    "vsock/messages-both-ways",
    "vsock/pauses",
    "vsock/rebind",
    "watchdog/st",
];

/// All cases, in the order in which they run.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = in_order();
    for case in &mut cases {
        case.long = LONG.iter().any(|prefix| case.name.starts_with(prefix));
    }
    cases
}

fn in_order() -> Vec<Case> {
    [
        host::cases(),
        boot::cases(),
        ends::cases(),
        exec::cases(),
        fs::cases(),
        fs_programs::cases(),
        chaos::cases(),
        ctl::cases(),
        net::cases(),
        p9::cases(),
        p9_device::cases(),
        pmem::cases(),
        polled::cases(),
        posix::cases(),
        root_dir::cases(),
        threads::cases(),
        vhost_user::cases(),
        vsock::cases(),
        consoles::cases(),
        balloon::cases(),
        watchdog::cases(),
        traces::cases(),
        cycles::cases(),
        busy::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
