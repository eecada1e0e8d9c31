//! `cargo xtask demo`: what the project can do, on whatever machine this is.

use std::io::{self, Write};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bed::host::Host;
use crate::bed::protocol::Ending;
use crate::bed::session::Outcome;
use crate::project;

const TIMEOUT: Duration = Duration::from_mins(5);

/// Boots Debian from a copy of the large disk, and shows what is on the disk afterwards.
const LINUX: &str = r#"
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp --sparse=always "$VMM_BED_TOOLS_DISK" "$folder/debian.img"
chmod 600 "$folder/debian.img"
vmm run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" --root path="$folder/debian.img" \
    --cpus 2 --memory 512M --cmdline 'quiet panic=-1' \
    --cmdline 'bed.sh="uname -srvm; head -n 1 /etc/os-release; nproc; free -m; df -h /; \
echo written by the guest > /hello; sync; cat /hello"' </dev/null
echo "--- the disk on the host:"
PATH=$PATH:/usr/sbin:/sbin
e2fsck -fn "$folder/debian.img" 2>/dev/null | tail -n 1
debugfs -R 'cat /hello' "$folder/debian.img" 2>/dev/null
"#;

/// Shows everything; fails when a step does.
pub(crate) fn run() -> Result<ExitCode> {
    title("building vmm")?;
    let vmm = project::build_vmm()?;

    title("vmm doctor: what this host can do")?;
    project::run(Command::new(&vmm).arg("doctor"))?;

    title("vmm run: the built-in guest, on this machine's KVM")?;
    project::run(Command::new(&vmm).arg("run"))?;

    title("stock Debian Linux from a disk image")?;
    let mut host = Host::open().context("there is no host that boots Linux")?;
    title(&format!("it boots {}", host.kind()))?;
    match host.run(LINUX, TIMEOUT, &mut io::stdout())? {
        Outcome::Ended(Ending::Exited(0)) => Ok(ExitCode::SUCCESS),
        outcome => bail!("Linux did not run to its end: {outcome:?}"),
    }
}

fn title(text: &str) -> Result<()> {
    let mut out = io::stdout();
    writeln!(out, "\n=== {text}")?;
    out.flush()?;
    Ok(())
}
