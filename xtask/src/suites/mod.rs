//! Named cases that run on a host with a real KVM. Each is a shell script: it passes with status 0
//! and is skipped with status 77, its last line being the reason.
//!
//! A new suite is a file here with a `cases` function, and a line in [`all`].

mod boot;
mod chaos;
mod ctl;
mod ends;
mod host;

use std::time::Duration;

/// Enough for the slowest case on a machine that is busy with something else.
const TIMEOUT: Duration = Duration::from_mins(3);

/// The status by which a script says that it cannot run here.
pub(crate) const SKIPPED: i32 = 77;

/// What every script starts with.
///
/// `run STATUS COMMAND...` runs a command that must end with this status; its output is shown and
/// kept in the file `output`. `has TEXT` and `lacks TEXT` look there. The working folder is the
/// case's own and goes away with it. `disk` is a fresh copy of the small ext4 root.
const PRELUDE: &str = r#"
set -eu
fail() { echo "FAILED: $*"; exit 1; }
skip() { echo "$*"; exit 77; }
run() {
    expected=$1; shift
    echo "+ $*"
    status=0; "$@" >output 2>&1 </dev/null || status=$?
    cat output
    [ $status = $expected ] || fail "status $status instead of $expected"
}
has() { grep -q -e "$1" output || fail "the output lacks: $1"; }
lacks() { ! grep -q -e "$1" output || fail "the output has: $1"; }
need_memory() {
    free=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)
    [ $((free / 1024)) -ge $1 ] || skip "needs $1 MiB of memory, $((free / 1024)) are free"
}
disk() { cp --sparse=always "$VMM_BED_DISK" "$1"; chmod 600 "$1"; }
folder=$(mktemp -d)
cd "$folder"
trap 'cd /; rm -rf "$folder"' EXIT
"#;

/// One case.
pub(crate) struct Case {
    /// Its suite and its own name: `boot/vmlinux-1-cpu-256M-disk`.
    pub(crate) name: String,
    script: String,
    pub(crate) timeout: Duration,
}

impl Case {
    fn new(name: impl Into<String>, script: impl Into<String>) -> Self {
        Self { name: name.into(), script: script.into(), timeout: TIMEOUT }
    }

    /// The whole script.
    pub(crate) fn script(&self) -> String {
        format!("{PRELUDE}{}", self.script)
    }
}

/// All cases, in the order in which they run.
pub(crate) fn all() -> Vec<Case> {
    [host::cases(), boot::cases(), ends::cases(), chaos::cases(), ctl::cases()]
        .into_iter()
        .flatten()
        .collect()
}
