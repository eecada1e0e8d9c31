//! `cargo xtask bed -- COMMAND...`

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

use super::console::Echo;
use super::native::{self, Verdict};
use super::protocol::Ending;
use super::session::{Input, Outcome, Remote, Session};
use super::terminal::{self, RawMode};
use super::{Environment, Options, open_session};
use crate::project;

/// What `timeout` of coreutils gives, too.
const TIMED_OUT: u8 = 124;
/// A command that a signal killed ends with this and the signal's number.
const KILLED: i32 = 128;

const ENVIRONMENT: &str = "\
The command finds vmm in PATH, and in its environment:
  VMM_BED             native or emulated
  VMM_BED_KERNEL      a stock Debian cloud kernel as vmlinux
  VMM_BED_BZIMAGE     the same kernel as bzImage
  VMM_BED_INITRD      a small initrd; it loads the disk's driver and obeys words of the command line:
                      bed.sh=\"SCRIPT\" bed.script=DEVICE bed.modules=NAME,...
                      bed.end=poweroff|reboot|panic|halt|hold|shell
  VMM_BED_DISK        a small ext4 root with busybox; copy it before a guest writes to it
  VMM_BED_TOOLS_DISK  a large ext4 root with Debian's tools
  VMM_BED_XTASK       this program
  VMM_BED_MODULES     the folder with that kernel's modules, under lib/modules
  VMM_BED_HOST_MODULES  the same of the emulated host's kernel
  VMM_BED_CRATES      programs from crates.io that some tests run
  VMM_BED_LATER       programs of a later Debian that some tests run
  VMM_BED_SYSTEMS     archives of whole Debian systems that some tests boot
  VMM_BED_SCRATCH     a folder that it may write to, on this machine target/bed/scratch

Exit status: the command's; 128 and the number of the signal that killed it; 124 when its time was
over; 125 when there is no bed.";

/// Runs a command as root on a host whose KVM runs stock Linux
///
/// Where /dev/kvm runs guests natively that is this machine, and the command runs as the invoking
/// user. Elsewhere it is an emulated host (QEMU's TCG with nested SVM), woken up from a saved state.
/// It sees the project at the same path, read-only, and target/bed/scratch, writable. What the
/// command started ends with it.
#[derive(Args)]
#[command(after_long_help = ENVIRONMENT)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags of a command line")]
pub(crate) struct BedArguments {
    /// After the command, a shell on the same host (the command's exit status stays)
    #[arg(long)]
    keep: bool,
    /// Memory of the emulated host, such as 4G [default: 8G, on a small machine half of its own]
    #[arg(long, value_parser = parse_size)]
    memory: Option<u64>,
    /// A further folder that the emulated host sees at the same path; with :rw it may write there
    #[arg(long, value_name = "DIR[:rw]")]
    share: Vec<String>,
    /// Kills the command after so many seconds and ends with status 124
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// The emulated host even where KVM is native
    #[arg(long)]
    emulated: bool,
    /// Takes the release vmm as it is, or none
    #[arg(long)]
    no_build: bool,
    /// Shows the emulated host's console and the times
    #[arg(short, long)]
    verbose: bool,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs the command and gives its exit status.
pub(crate) fn run(arguments: BedArguments) -> Result<ExitCode> {
    if !arguments.no_build {
        project::build_vmm()?;
    }
    let verdict = native::probe();
    if arguments.verbose {
        eprintln!("bed: {verdict}");
    }
    if matches!(verdict, Verdict::Native { .. }) && !arguments.emulated {
        run_native(&arguments)
    } else {
        run_emulated(arguments)
    }
}

/// Becomes the command: its stdio, its signals and its exit status are ours.
fn run_native(arguments: &BedArguments) -> Result<ExitCode> {
    let environment = Environment::native()?;
    let mut command;
    if let Some(seconds) = arguments.timeout {
        command = Command::new("timeout");
        command.args(["--kill-after=5", &seconds.to_string()]).args(&arguments.command);
    } else {
        command = Command::new(&arguments.command[0]);
        command.args(&arguments.command[1..]);
    }
    command.envs(environment.variables);
    if arguments.keep {
        let status = command.status().context("cannot start the command")?;
        eprintln!("bed: the command ended with {status}; this shell has its environment");
        let shell = std::env::var_os("SHELL").unwrap_or_else(|| "sh".into());
        let variables = Environment::native()?.variables;
        Command::new(shell).envs(variables).status().context("cannot start a shell")?;
        return Ok(ExitCode::from(status.code().unwrap_or(1) as u8));
    }
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", arguments.command[0]))
}

fn run_emulated(arguments: BedArguments) -> Result<ExitCode> {
    let options = Options {
        memory_mib: arguments.memory.map(|bytes| bytes >> 20),
        shares: arguments.share,
        echo: if arguments.verbose { Echo::StandardError } else { Echo::Silent },
    };
    let (mut session, environment) = open_session(&options)?;
    forward_signals(session.remote())?;
    let timeout = arguments.timeout.map(Duration::from_secs);
    let outcome = run_here(&mut session, &environment, arguments.command, timeout)?;
    if arguments.keep {
        eprintln!("bed: the command ended ({outcome:?}); this is a shell on the same host");
        run_here(&mut session, &environment, vec!["bash".into()], None)?;
    }
    Ok(match outcome {
        Outcome::Ended(Ending::Exited(code)) => ExitCode::from(code as u8),
        Outcome::Ended(Ending::Killed { signal }) => ExitCode::from((KILLED + signal) as u8),
        Outcome::Ended(Ending::NotStarted(reason)) => bail!("{reason}"),
        Outcome::TimedOut => {
            eprintln!(
                "bed: the command was killed after {} s",
                arguments.timeout.unwrap_or_default()
            );
            ExitCode::from(TIMED_OUT)
        }
    })
}

/// Runs a command with our own stdio.
fn run_here(
    session: &mut Session,
    environment: &Environment,
    command: Vec<String>,
    timeout: Option<Duration>,
) -> Result<Outcome> {
    let terminal = terminal::size();
    let exec = environment.exec(command, terminal);
    let raw = terminal.map(|_| RawMode::enter()).transpose()?;
    let (mut stdout, mut stderr) = (std::io::stdout().lock(), std::io::stderr().lock());
    let outcome = session.run(&exec, timeout, Input::Inherited, &mut stdout, &mut stderr);
    drop(raw);
    outcome
}

/// Passes signals to the command. The second one that ends programs ends this one at once, and
/// QEMU dies with it.
fn forward_signals(remote: Remote) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH])
        .context("cannot handle signals")?;
    thread::spawn(move || {
        let mut asked = false;
        for signal in &mut signals {
            if signal == SIGWINCH {
                // A host that does not listen is noticed by the thread that reads from it.
                let _ = terminal::size().map(|size| remote.resize(size));
                continue;
            }
            if asked || remote.signal(signal as u8).is_err() {
                std::process::exit(KILLED + signal);
            }
            asked = true;
        }
    });
    Ok(())
}

/// A number of bytes with an optional K, M or G.
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.strip_suffix(['G', 'M', 'K']) {
        Some(digits) if text.ends_with('G') => (digits, 30),
        Some(digits) if text.ends_with('M') => (digits, 20),
        Some(digits) => (digits, 10),
        None => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text} is no size such as 4G"))?;
    let bytes = number.checked_shl(shift).filter(|bytes| bytes >> shift == number);
    match bytes {
        Some(bytes) if bytes >= 512 << 20 => Ok(bytes),
        _ => Err("the emulated host needs at least 512M".into()),
    }
}

/// A folder to share and what may be done with it.
pub(super) fn parse_share(text: &str) -> (PathBuf, super::protocol::Access) {
    use super::protocol::Access;
    match text.strip_suffix(":rw") {
        Some(folder) => (folder.into(), Access::ReadWrite),
        None => (text.into(), Access::ReadOnly),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_limits() {
        assert_eq!(parse_size("4G"), Ok(4 << 30));
        assert_eq!(parse_size("1024M"), Ok(1 << 30));
        for wrong in ["", "G", "4T", "-1G", "17179869184G", "0", "1M"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
