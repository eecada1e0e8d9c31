//! `cargo xtask demo`: what the project can do, on whatever machine this is.

use std::io::{self, Write};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bed::host::Host;
use crate::bed::native::{self, Verdict};
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
guest='uname -srvm; head -n 1 /etc/os-release; nproc; free -m; df -h /; '
guest="$guest echo written by the guest > /hello; sync; cat /hello"
vmm run "$VMM_BED_KERNEL" --initrd "$VMM_BED_INITRD" --root path="$folder/debian.img" \
    --cpus 2 --memory 512M --cmdline 'quiet panic=-1' --cmdline "bed.sh=\"$guest\"" </dev/null
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
    // It fails where no VM can run on this machine; the demo goes on in the bed.
    let status = Command::new(&vmm).arg("doctor").status().context("cannot start vmm")?;
    if !status.success() {
        println!("vmm doctor ended with {status}");
    }

    if let Verdict::Unusable(reason) = native::probe() {
        title(&format!("the built-in guest runs on the bed's host: {reason}"))?;
        let mut host = Host::open().context("there is no host with a KVM")?;
        finish(host.run("vmm run", TIMEOUT, &mut io::stdout())?)?;
    } else {
        title("vmm run: the built-in guest, on this machine's KVM")?;
        project::run(Command::new(&vmm).arg("run"))?;
    }

    title("stock Debian Linux from a disk image")?;
    let mut host = Host::open().context("there is no host that boots Linux")?;
    title(&format!("it boots {}", host.kind()))?;
    finish(host.run(LINUX, TIMEOUT, &mut io::stdout())?)?;
    Ok(ExitCode::SUCCESS)
}

fn finish(outcome: Outcome) -> Result<()> {
    match outcome {
        Outcome::Ended(Ending::Exited(0)) => Ok(()),
        outcome => bail!("the guest did not run to its end: {outcome:?}"),
    }
}

fn title(text: &str) -> Result<()> {
    let mut out = io::stdout();
    writeln!(out, "\n=== {text}")?;
    out.flush()?;
    Ok(())
}
