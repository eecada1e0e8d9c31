//! Chaos under stock Linux with fio, in the bed.

use anyhow::{Context, Result};

use crate::project;

/// Runs on the bed's host. `$1` is the number of kills. fio writes with checksums, reads back and
/// compares; it ends when the last kill is done and says what it found.
const SCRIPT: &str = include_str!("fio.sh");

/// Kills the disk's process `kills` times while Linux uses the disk; the script's exit status.
pub(super) fn run(kills: u32) -> Result<i32> {
    let myself = std::env::current_exe().context("cannot find this program")?;
    let status = std::process::Command::new(myself)
        .current_dir(project::root())
        .args(["bed", "--timeout", "540", "--", "bash", "-c", SCRIPT, "chaos", &kills.to_string()])
        .status()
        .context("cannot start the bed")?;
    Ok(status.code().unwrap_or(-1))
}

/// The script as a case of the test suites.
pub(crate) fn case(kills: u32) -> String {
    format!("set -- {kills}\n{SCRIPT}")
}
