//! The bed's end on the emulated host: mounts shares, runs commands, carries their stdio.
//!
//! It is this same program, started by the init script from the run share, so that the saved host
//! stays valid when this code changes.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use rustix::mount::MountFlags;
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::protocol::{self, Access, CHUNK, Ending, Exec, Kind, Mount, PORT_NAME, Setup, Size};

/// The folder that the init script mounts the run share on.
const RUN: &str = "/run/bed";
const CGROUP: &str = "/sys/fs/cgroup/command";

/// Frames go out from several threads.
type Port = Arc<Mutex<File>>;

/// What standard input brings to the thread that writes it.
enum Input {
    Bytes(Vec<u8>),
    End,
}

/// A command under way.
struct Running {
    pid: i32,
    input: Sender<Input>,
    terminal: Option<OwnedFd>,
}

/// Serves the port until the other end is gone.
pub(crate) fn run() -> Result<()> {
    let path = find_port()?;
    let port = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let mut reader = port.try_clone()?;
    let port: Port = Arc::new(Mutex::new(port));
    let running: Arc<Mutex<Option<Running>>> = Arc::default();
    while let Some(frame) = protocol::receive(&mut reader).context("cannot read from the port")? {
        match frame.kind {
            Kind::Setup => {
                let setup: Setup = serde_json::from_slice(&frame.payload)?;
                set_up(&setup)?;
                send(&port, Kind::Ready, b"");
            }
            Kind::Exec => {
                let exec: Exec = serde_json::from_slice(&frame.payload)?;
                if let Err(error) = start(&exec, &port, &running) {
                    done(&port, &Ending::NotStarted(format!("{error:#}")));
                }
            }
            kind => {
                if let Some(running) = lock(&running).as_ref() {
                    running.handle(kind, &frame.payload);
                }
            }
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a frame. A port that fails has lost its other end, and the reader notices that too.
fn send(port: &Port, kind: Kind, payload: &[u8]) {
    let _ = protocol::send(&mut *lock(port), kind, payload);
}

fn done(port: &Port, ending: &Ending) {
    let _ = protocol::send_json(&mut *lock(port), Kind::Done, ending);
}

/// Without udev nothing makes the named links under /dev/virtio-ports.
fn find_port() -> Result<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports").context("there are no virtio ports")? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT_NAME {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    anyhow::bail!("no virtio port has the name {PORT_NAME}")
}

fn set_up(setup: &Setup) -> Result<()> {
    for share in &setup.mounts {
        mount_share(share)
            .with_context(|| format!("cannot mount {} on {}", share.tag, share.path.display()))?;
    }
    if setup.modules.is_dir() {
        rustix::mount::mount_bind(&setup.modules, "/usr/lib/modules")
            .context("cannot show the kernel's modules")?;
    }
    let vmm = Path::new(RUN).join("bin/vmm");
    if vmm.exists() {
        // In memory, so that measurements do not see the share.
        fs::copy(vmm, "/usr/local/bin/vmm").context("cannot copy vmm")?;
    }
    Ok(())
}

fn mount_share(share: &Mount) -> Result<()> {
    // It may lie inside of a read-only share; then it is there already.
    if !share.path.is_dir() {
        fs::create_dir_all(&share.path)?;
    }
    let (flags, cache) = match share.access {
        Access::ReadOnly => (MountFlags::RDONLY, "loose"),
        // Writes are on the other side at once; files can still be mapped.
        Access::ReadWrite => (MountFlags::empty(), "mmap"),
    };
    let options = format!("trans=virtio,version=9p2000.L,msize=512000,cache={cache}");
    let options = CString::new(options)?;
    rustix::mount::mount(share.tag.as_str(), &share.path, "9p", flags, Some(options.as_c_str()))?;
    Ok(())
}

impl Running {
    fn handle(&self, kind: Kind, payload: &[u8]) {
        match kind {
            // The window bounds what is under way, so the queue has room.
            Kind::Stdin => drop(self.input.send(Input::Bytes(payload.to_vec()))),
            Kind::StdinEnd => drop(self.input.send(Input::End)),
            Kind::Signal => {
                let signal = payload.first().copied().map(i32::from);
                let group = Pid::from_raw(self.pid);
                if let (Some(group), Some(signal)) =
                    (group, signal.and_then(Signal::from_named_raw))
                {
                    // It may have ended meanwhile.
                    let _ = rustix::process::kill_process_group(group, signal);
                }
            }
            Kind::Resize => {
                if let (Some(terminal), Ok(size)) =
                    (&self.terminal, serde_json::from_slice::<Size>(payload))
                {
                    let _ = rustix::termios::tcsetwinsize(terminal, window(size));
                }
            }
            Kind::Kill => kill_all(),
            _ => {}
        }
    }
}

/// Kills the command and everything that it started.
fn kill_all() {
    let _ = fs::write(Path::new(CGROUP).join("cgroup.kill"), "1");
}

fn window(size: Size) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Starts a command and the threads that serve it.
fn start(exec: &Exec, port: &Port, running: &Arc<Mutex<Option<Running>>>) -> Result<()> {
    fs::create_dir_all(CGROUP).context("cannot make a control group")?;
    // The shell joins the control group before it becomes the command.
    let join = format!("echo 0 >{CGROUP}/cgroup.procs; exec \"$@\"");
    let mut command;
    if exec.terminal.is_some() {
        command = Command::new("setsid");
        command.args(["--ctty", "sh", "-c", &join, "sh"]);
    } else {
        command = Command::new("sh");
        command.args(["-c", &join, "sh"]).process_group(0);
    }
    command.args(&exec.command).current_dir(&exec.directory);
    command.env_clear().envs(exec.environment.iter().map(|(name, value)| (name, value)));

    let (child, terminal, outputs, input): (_, _, _, Box<dyn Write + Send>);
    if let Some(size) = exec.terminal {
        let pair = open_terminal(size)?;
        let (reader, writer) = (File::from(pair.0.try_clone()?), File::from(pair.0.try_clone()?));
        command.stdin(pair.1.try_clone()?).stdout(pair.1.try_clone()?).stderr(pair.1);
        child = spawn(command)?;
        outputs = vec![pump(reader, Kind::Stdout, port)];
        (terminal, input) = (Some(pair.0), Box::new(writer));
    } else {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut spawned = spawn(command)?;
        let missing = "a pipe is missing";
        outputs = vec![
            pump(spawned.stdout.take().context(missing)?, Kind::Stdout, port),
            pump(spawned.stderr.take().context(missing)?, Kind::Stderr, port),
        ];
        (terminal, input) = (None, Box::new(spawned.stdin.take().context(missing)?));
        child = spawned;
    }
    // The other end sends at most STDIN_WINDOW bytes ahead, which bounds the queue.
    let (sender, receiver) = mpsc::channel();
    let keeps_open = terminal.is_some();
    feed(input, receiver, keeps_open, port.clone());
    *lock(running) = Some(Running { pid: child.id() as i32, input: sender, terminal });
    wait(child, outputs, port.clone(), running.clone());
    Ok(())
}

/// Starts the child; the parent's copies of its descriptors go away with the command.
fn spawn(mut command: Command) -> Result<Child> {
    command.spawn().context("cannot start a shell in this folder")
}

fn open_terminal(size: Size) -> Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let controller = rustix::pty::openpt(flags).context("cannot open a terminal")?;
    rustix::pty::grantpt(&controller)?;
    rustix::pty::unlockpt(&controller)?;
    rustix::termios::tcsetwinsize(&controller, window(size))?;
    let name = rustix::pty::ptsname(&controller, Vec::new())?;
    let terminal = rustix::fs::open(
        name,
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    Ok((controller, terminal))
}

/// Carries output until its end. A terminal whose last user is gone reads as an error.
fn pump(mut source: impl Read + Send + 'static, kind: Kind, port: &Port) -> JoinHandle<()> {
    let port = port.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = source.read(&mut buffer) {
            send(&port, kind, &buffer[..count]);
        }
    })
}

/// Writes what arrives to the command. A command that closed its input is no error.
fn feed(
    mut input: Box<dyn Write + Send>,
    receiver: mpsc::Receiver<Input>,
    keeps_open: bool,
    port: Port,
) {
    thread::spawn(move || {
        for item in receiver {
            match item {
                Input::Bytes(bytes) => {
                    let _ = input.write_all(&bytes);
                    send(&port, Kind::Acknowledged, &(bytes.len() as u32).to_le_bytes());
                }
                // The end of a terminal's input is a byte that its user types.
                Input::End if keeps_open => {}
                Input::End => break,
            }
        }
    });
}

/// Waits for the command on a thread, ends what it left behind and reports.
fn wait(
    mut child: Child,
    outputs: Vec<JoinHandle<()>>,
    port: Port,
    running: Arc<Mutex<Option<Running>>>,
) {
    thread::spawn(move || {
        let status = child.wait();
        kill_all();
        // What is queued for it now goes nowhere.
        *lock(&running) = None;
        for output in outputs {
            let _ = output.join();
        }
        let ending = match status {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Ending::Exited(code),
                (None, signal) => Ending::Killed { signal: signal.unwrap_or(0) },
            },
            Err(error) => Ending::NotStarted(format!("cannot wait for the command: {error}")),
        };
        // Nothing uses it any more, except groups that the command made.
        let _ = fs::remove_dir(CGROUP);
        done(&port, &ending);
    });
}
