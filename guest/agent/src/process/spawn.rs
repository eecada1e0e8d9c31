//! Starts a program: its streams or terminal, who it runs as, where, and with which limits.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use proto::v1;
use proto::v1::not_started::Reason;
use proto::v1::start_request::Stdio as Wanted;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit};
use rustix::pty::OpenptFlags;
use rustix::termios::tcsetwinsize;
use tonic::Status;

use super::user::{self, Identity};

/// Where programs are looked up when nobody says otherwise: as in Debian, for root.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process that runs, with our ends of its streams. They do not block.
pub(super) struct Spawned {
    pub(super) pid: Pid,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) terminal: Option<OwnedFd>,
}

/// What the process needs of the host's wishes between fork and exec.
struct Setup {
    identity: Option<Identity>,
    limits: Vec<(Resource, Rlimit)>,
    terminal: bool,
}

/// Refuses what no process could be started from.
pub(super) fn check(request: &v1::StartRequest) -> Result<(), Status> {
    let no_name = |variable: &v1::Variable| {
        variable.name.is_empty() || variable.name.contains(&b'=') || variable.name.contains(&0)
    };
    if request.argv.first().is_none_or(Vec::is_empty) {
        return Err(Status::invalid_argument("there is no program to start"));
    }
    if request.env.iter().any(no_name) {
        return Err(Status::invalid_argument("an environment variable has no usable name"));
    }
    if request.limits.iter().any(|limit| resource(limit.resource).is_none()) {
        return Err(Status::invalid_argument("there is no such resource limit"));
    }
    Ok(())
}

/// Starts the program. What can be the host's mistake is told apart.
pub(super) fn spawn(request: &v1::StartRequest) -> Result<Spawned, v1::NotStarted> {
    let identity = identity(&request.user)?;
    let folder = folder(&request.cwd, identity.as_ref())?;
    let mut command = Command::new(OsStr::from_bytes(&request.argv[0]));
    command.args(request.argv[1..].iter().map(|argument| OsStr::from_bytes(argument)));
    command.current_dir(folder);
    set_environment(&mut command, request, identity.as_ref());

    let mut spawned = connect(&mut command, request.stdio.as_ref())
        .map_err(|error| refused(Reason::Failed, format!("cannot make its streams: {error}")))?;
    let setup = Setup {
        terminal: spawned.terminal.is_some(),
        limits: request.limits.iter().filter_map(limit).collect(),
        identity: if request.user.is_empty() { None } else { identity },
    };
    // SAFETY: between fork and exec only system calls are made; nothing is allocated or locked.
    unsafe { command.pre_exec(move || setup.apply()) };
    let child = command.spawn().map_err(|error| why(request, &error))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    spawned.pid = pid.ok_or_else(|| refused(Reason::Failed, "it has no process number".into()))?;
    Ok(spawned)
}

fn refused(reason: Reason, message: String) -> v1::NotStarted {
    v1::NotStarted { reason: reason.into(), message }
}

/// The folder was checked before, so what is missing or forbidden is the program.
fn why(request: &v1::StartRequest, error: &io::Error) -> v1::NotStarted {
    let reason = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR) => Reason::NotFound,
        Some(Errno::ACCESS | Errno::NOEXEC) => Reason::NotExecutable,
        _ => Reason::Failed,
    };
    let program = String::from_utf8_lossy(&request.argv[0]).into_owned();
    let text = match reason {
        Reason::NotFound => format!("`{program}` is not in the guest"),
        Reason::NotExecutable => format!("`{program}` cannot be executed: {error}"),
        _ => format!("cannot start `{program}`: {error}"),
    };
    refused(reason, text)
}

/// Who it runs as; without a wish the agent's own user, if the files know it.
fn identity(wanted: &str) -> Result<Option<Identity>, v1::NotStarted> {
    let read = |path: &str| std::fs::read(path).unwrap_or_default();
    let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
    let (passwd, group) = (String::from_utf8_lossy(&passwd), String::from_utf8_lossy(&group));
    if wanted.is_empty() {
        let own = rustix::process::getuid().as_raw().to_string();
        return Ok(user::resolve(&own, &passwd, &group).ok());
    }
    user::resolve(wanted, &passwd, &group)
        .map(Some)
        .map_err(|error| refused(Reason::NoUser, error.to_string()))
}

fn folder(wanted: &[u8], identity: Option<&Identity>) -> Result<OsString, v1::NotStarted> {
    if !wanted.is_empty() {
        let folder = OsString::from_vec(wanted.to_vec());
        return match std::fs::metadata(&folder) {
            Ok(metadata) if metadata.is_dir() => Ok(folder),
            _ => Err(refused(
                Reason::NoFolder,
                format!("there is no folder `{}` in the guest", Path::new(&folder).display()),
            )),
        };
    }
    let home = identity.and_then(|identity| identity.account.as_ref()).map(|one| &one.home);
    Ok(home.filter(|home| Path::new(home).is_dir()).map_or_else(|| "/".into(), Into::into))
}

fn set_environment(command: &mut Command, request: &v1::StartRequest, identity: Option<&Identity>) {
    command.env_clear().env("PATH", DEFAULT_PATH).env("HOME", "/");
    if let Some(account) = identity.and_then(|identity| identity.account.as_ref()) {
        command.env("HOME", &account.home).env("USER", &account.name);
        command.env("LOGNAME", &account.name);
        if !account.shell.is_empty() {
            command.env("SHELL", &account.shell);
        }
    }
    if let Some(Wanted::Terminal(terminal)) = &request.stdio {
        let term = if terminal.term.is_empty() { "linux" } else { &terminal.term };
        command.env("TERM", term);
    }
    for variable in &request.env {
        command.env(OsStr::from_bytes(&variable.name), OsStr::from_bytes(&variable.value));
    }
}

/// Makes the streams, gives the process its ends and keeps ours.
fn connect(command: &mut Command, wanted: Option<&Wanted>) -> io::Result<Spawned> {
    // Replaced as soon as there is one.
    let mut spawned =
        Spawned { pid: Pid::INIT, stdin: None, stdout: None, stderr: None, terminal: None };
    let default = v1::Pipes::default();
    match wanted {
        Some(Wanted::Terminal(terminal)) => {
            let (master, slave) = open_terminal(terminal)?;
            command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
            spawned.stdin = Some(master.try_clone()?);
            spawned.stdout = Some(master.try_clone()?);
            spawned.terminal = Some(master);
        }
        pipes => {
            let pipes = match pipes {
                Some(Wanted::Pipes(pipes)) => pipes,
                _ => &default,
            };
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if pipes.stdin {
                let (theirs, ours) = io::pipe()?;
                command.stdin(theirs);
                spawned.stdin = Some(nonblocking(ours.into())?);
            }
            if pipes.stdout {
                let (ours, theirs) = io::pipe()?;
                command.stdout(theirs);
                spawned.stdout = Some(nonblocking(ours.into())?);
            }
            if pipes.stderr {
                let (ours, theirs) = io::pipe()?;
                command.stderr(theirs);
                spawned.stderr = Some(nonblocking(ours.into())?);
            }
        }
    }
    Ok(spawned)
}

fn open_terminal(wanted: &v1::Terminal) -> io::Result<(OwnedFd, OwnedFd)> {
    let master =
        rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    tcsetwinsize(&slave, super::size(wanted.rows, wanted.columns))?;
    Ok((nonblocking(master)?, slave))
}

/// Ours alone: the process's end is a file of its own.
fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(fd.as_fd())?;
    rustix::fs::fcntl_setfl(fd.as_fd(), flags | OFlags::NONBLOCK)?;
    Ok(fd)
}

impl Setup {
    /// In the new process. A session of its own makes it the leader of a process group that can
    /// be signalled as one.
    fn apply(&self) -> io::Result<()> {
        reset_signals()?;
        rustix::process::setsid()?;
        if self.terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        for (resource, limit) in &self.limits {
            rustix::process::setrlimit(*resource, *limit)?;
        }
        if let Some(identity) = &self.identity {
            set_identity(identity)?;
        }
        Ok(())
    }
}

/// The agent's signals wait in a descriptor; programs expect theirs to arrive, and to do what they do by
/// default, also if whoever started the agent ignored them.
fn reset_signals() -> io::Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: no handler is set. The kernel refuses SIGKILL and SIGSTOP, the C library its own.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: the first call initialises the set that the second reads.
    let error = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut())
    };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// The C library's calls would do it for all threads; after a fork there is one.
fn set_identity(identity: &Identity) -> io::Result<()> {
    // SAFETY: the list is valid for its length, and the calls change this process alone.
    let results = unsafe {
        [
            libc::syscall(libc::SYS_setgroups, identity.groups.len(), identity.groups.as_ptr()),
            libc::syscall(libc::SYS_setresgid, identity.gid, identity.gid, identity.gid),
            libc::syscall(libc::SYS_setresuid, identity.uid, identity.uid, identity.uid),
        ]
    };
    if results.contains(&-1) { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The kernel's numbers of resources (`RLIMIT_*`).
fn resource(number: u32) -> Option<Resource> {
    Some(match number as libc::__rlimit_resource_t {
        libc::RLIMIT_CPU => Resource::Cpu,
        libc::RLIMIT_FSIZE => Resource::Fsize,
        libc::RLIMIT_DATA => Resource::Data,
        libc::RLIMIT_STACK => Resource::Stack,
        libc::RLIMIT_CORE => Resource::Core,
        libc::RLIMIT_RSS => Resource::Rss,
        libc::RLIMIT_NPROC => Resource::Nproc,
        libc::RLIMIT_NOFILE => Resource::Nofile,
        libc::RLIMIT_MEMLOCK => Resource::Memlock,
        libc::RLIMIT_AS => Resource::As,
        libc::RLIMIT_LOCKS => Resource::Locks,
        libc::RLIMIT_SIGPENDING => Resource::Sigpending,
        libc::RLIMIT_MSGQUEUE => Resource::Msgqueue,
        libc::RLIMIT_NICE => Resource::Nice,
        libc::RLIMIT_RTPRIO => Resource::Rtprio,
        libc::RLIMIT_RTTIME => Resource::Rttime,
        _ => return None,
    })
}

fn limit(wanted: &v1::Limit) -> Option<(Resource, Rlimit)> {
    let value = |value: u64| (value != u64::MAX).then_some(value);
    let limit = Rlimit { current: value(wanted.soft), maximum: value(wanted.hard) };
    Some((resource(wanted.resource)?, limit))
}
