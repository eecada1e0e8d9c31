//! The emulated host as a QEMU process. Its sockets are inherited pairs, so nothing of it is left in
//! the file system, and it dies with us.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::io::FdFlags;

use super::assets::Assets;
use super::console::{Console, Echo};
use super::protocol::{Access, PORT_NAME};
use crate::project;

const PROGRAM: &str = "qemu-system-x86_64";

/// `tsc=reliable`: else reading the clock costs 2.4 us instead of 0.15. `quiet`: each line that the
/// kernel logs costs milliseconds.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 panic=-1 quiet tsc=reliable mitigations=off \
     cryptomgr.notests";

/// Slots for folders that the developer shares; they exist in every snapshot, so their number is
/// fixed.
pub(crate) const SHARE_SLOTS: usize = 4;

/// What runs QEMU with: a fresh machine whose RAM file will be kept, or a saved one.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Boots the kernel; all RAM goes to the file.
    Boot { ram: &'a Path },
    /// Waits for a saved state; the file is only read.
    Restore { ram: &'a Path },
}

/// A folder behind a 9p tag.
pub(crate) struct Share {
    pub(crate) tag: String,
    pub(crate) folder: PathBuf,
    pub(crate) access: Access,
}

/// All that a start takes.
pub(crate) struct Launch<'a> {
    pub(crate) assets: &'a Assets,
    pub(crate) memory_mib: u64,
    pub(crate) start: Start<'a>,
    /// One for each of [`tags`].
    pub(crate) shares: &'a [Share],
    /// Where the console is kept.
    pub(crate) log: &'a Path,
    pub(crate) echo: Echo,
}

/// A running emulated host.
pub(crate) struct Machine {
    child: Child,
    pub(crate) serial: ChildStdin,
    pub(crate) console: Console,
    pub(crate) qmp: UnixStream,
    pub(crate) agent: UnixStream,
}

/// The tags of all 9p devices, in the order of their devices.
pub(crate) fn tags() -> Vec<String> {
    let shares = (0..SHARE_SLOTS).map(|slot| format!("share{slot}"));
    ["run", "project", "scratch"].into_iter().map(str::to_owned).chain(shares).collect()
}

/// The part of the command line that the saved state depends on.
pub(crate) fn machine_arguments(memory_mib: u64) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        // QEMU 7.2 hangs now and then with two.
        "-smp",
        "1",
        "-machine",
        "q35,memory-backend=ram",
        "-append",
        KERNEL_ARGUMENTS,
        "-serial",
        "chardev:serial",
        "-device",
        "virtio-serial-pci",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.extend(["-m".to_owned(), format!("{memory_mib}M")]);
    let port = format!("virtserialport,chardev=agent,name={PORT_NAME}");
    arguments.extend(["-device".to_owned(), port]);
    for tag in tags() {
        let device = format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}");
        arguments.extend(["-device".to_owned(), device]);
    }
    arguments
}

/// QEMU's own version line.
pub(crate) fn version() -> Result<String> {
    let text = project::output(Command::new(PROGRAM).arg("--version"))?;
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}

impl Machine {
    /// Starts QEMU.
    pub(crate) fn start(launch: &Launch<'_>) -> Result<Self> {
        let (agent, agent_end) = UnixStream::pair()?;
        let (qmp, qmp_end) = UnixStream::pair()?;
        for end in [&agent_end, &qmp_end] {
            rustix::io::fcntl_setfd(end, FdFlags::empty())?;
        }
        // No unsafe code between fork and exec: setpriv sets the parent death signal.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", PROGRAM]).args(machine_arguments(launch.memory_mib));
        command.arg("-kernel").arg(launch.assets.host_kernel());
        command.arg("-initrd").arg(launch.assets.host_initramfs());
        let (ram, mode) = match launch.start {
            Start::Boot { ram } => (ram, "on"),
            Start::Restore { ram } => {
                command.args(["-incoming", "defer"]);
                (ram, "off")
            }
        };
        command.arg("-object").arg(format!(
            "memory-backend-file,id=ram,size={}M,share={mode},mem-path={}",
            launch.memory_mib,
            escape(ram)
        ));
        command.args(["-chardev", "stdio,id=serial,signal=off"]);
        command.args(["-chardev", &format!("socket,id=agent,fd={}", agent_end.as_raw_fd())]);
        command.args(["-chardev", &format!("socket,id=qmp,fd={}", qmp_end.as_raw_fd())]);
        command.args(["-mon", "chardev=qmp,mode=control"]);
        for share in launch.shares {
            let readonly = if share.access == Access::ReadOnly { "on" } else { "off" };
            command.arg("-fsdev").arg(format!(
                "local,id={},security_model=none,multidevs=remap,readonly={readonly},path={}",
                share.tag,
                escape(&share.folder)
            ));
        }
        // A group of its own: the terminal's Ctrl-C is for the command inside.
        let (output, output_end) = io::pipe()?;
        command.process_group(0).stdin(Stdio::piped());
        command.stdout(output_end.try_clone()?).stderr(output_end);
        let mut child = command.spawn().context("cannot start QEMU")?;
        // It holds the pipe's other end, whose closing says that QEMU is gone.
        drop(command);
        let serial = child.stdin.take().context("QEMU has no serial input")?;
        let console = Console::default();
        let machine = Self { child, serial, console, qmp, agent };
        machine.console.follow(output, launch.log, launch.echo)?;
        Ok(machine)
    }

    /// Whether QEMU runs, and else how it ended, for an error message. To be asked when its console
    /// has closed or is silent.
    pub(crate) fn state(&mut self) -> String {
        // A closed console comes a moment before the end of the process.
        for _ in 0..100 {
            match self.child.try_wait() {
                Ok(Some(status)) => return format!("QEMU ended: {status}"),
                Ok(None) => thread::sleep(Duration::from_millis(1)),
                Err(error) => return format!("QEMU cannot be asked: {error}"),
            }
        }
        "QEMU runs".to_owned()
    }

    /// Wakes the init of the emulated host up.
    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        self.serial.write_all(line.as_bytes()).context("cannot write to the serial line")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// QEMU takes a comma in a value when it is doubled.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}
