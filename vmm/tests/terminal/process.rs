//! Starts processes on terminals, pipes and files, and talks to them.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, tcgetattr};

/// Names the role that a process plays.
pub(crate) const ROLE: &str = "TERMINAL_TEST_ROLE";

/// Names the driver that a process's executor has.
pub(crate) const DRIVER: &str = "TERMINAL_TEST_DRIVER";

/// The driver that processes are started with from now on.
static CHOSEN: Mutex<&str> = Mutex::new("auto");

pub(crate) fn choose_driver(driver: &'static str) {
    *CHOSEN.lock().expect("not poisoned") = driver;
}

/// A terminal as a user sees it.
pub(crate) struct Terminal {
    controller: File,
    user: OwnedFd,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = openpt(flags).expect("a pty");
        grantpt(&controller).and_then(|()| unlockpt(&controller)).expect("unlocked");
        let path = ptsname(&controller, Vec::new()).expect("a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let user = rustix::fs::open(path, flags, Mode::empty()).expect("opened");
        Self { controller: controller.into(), user }
    }

    /// The modes, in a form that can be compared and shown.
    pub(crate) fn modes(&self) -> String {
        let Termios { input_modes, output_modes, control_modes, local_modes, .. } =
            tcgetattr(&self.user).expect("modes");
        format!("{input_modes:?} {output_modes:?} {control_modes:?} {local_modes:?}")
    }

    /// Waits until the process has set modes.
    pub(crate) fn wait_for_modes(&self, modes: &str) {
        while self.modes() != modes {
            std::thread::yield_now();
        }
    }

    pub(crate) fn press(&self, keys: &[u8]) {
        (&self.controller).write_all(keys).expect("pressed");
    }

    /// Reads until the text has been shown.
    pub(crate) fn expect(&self, text: &[u8]) {
        expect(&mut &self.controller, text);
    }
}

fn expect(source: &mut impl Read, text: &[u8]) {
    let mut shown = Vec::new();
    let mut byte = [0];
    while !shown.ends_with(text) {
        match source.read(&mut byte) {
            Ok(1) => shown.push(byte[0]),
            end => panic!("{:?} and then {end:?}", String::from_utf8_lossy(&shown)),
        }
    }
}

/// A process under test; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// The leader of a session with this terminal.
    pub(crate) fn on_terminal(terminal: &Terminal, role: &str) -> Self {
        Self::lead(terminal, command(role))
    }

    /// The binary itself, as the leader of a session with this terminal.
    pub(crate) fn vmm_on_terminal(terminal: &Terminal, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
        command.args(arguments);
        Self::lead(terminal, command)
    }

    fn lead(terminal: &Terminal, mut command: Command) -> Self {
        let stdio = || Stdio::from(terminal.user.try_clone().expect("a descriptor"));
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        // SAFETY: only system calls are made between fork and exec.
        unsafe { command.pre_exec(own_terminal) };
        Self::spawn(&mut command)
    }

    pub(crate) fn on_pipe(role: &str) -> Self {
        Self::spawn(command(role).stdin(Stdio::piped()).stdout(Stdio::piped()))
    }

    pub(crate) fn on_null(role: &str) -> Self {
        Self::spawn(command(role).stdin(Stdio::null()).stdout(Stdio::piped()))
    }

    pub(crate) fn on_file(role: &str, content: &[u8]) -> Self {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        io::Seek::rewind(&mut file).expect("rewound");
        Self::spawn(command(role).stdin(file).stdout(Stdio::piped()))
    }

    pub(crate) fn on_closed(role: &str) -> Self {
        let mut command = command(role);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // SAFETY: only a system call is made between fork and exec, and nothing uses descriptor 0
        // there.
        unsafe {
            command.pre_exec(|| {
                libc::close(0);
                Ok(())
            })
        };
        Self::spawn(&mut command)
    }

    fn spawn(command: &mut Command) -> Self {
        Self { child: command.spawn().expect("started") }
    }

    pub(crate) fn expect(&mut self, text: &[u8]) {
        expect(self.child.stdout.as_mut().expect("a pipe"), text);
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.child.stdin.as_mut().expect("a pipe").write_all(bytes).expect("written");
    }

    pub(crate) fn close_input(&mut self) {
        self.child.stdin = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }

    pub(crate) fn wait_until_stopped(&self) {
        let pid = Pid::from_child(&self.child);
        let (_, status) =
            waitpid(Some(pid), WaitOptions::UNTRACED).expect("waited").expect("a change");
        assert!(status.stopped(), "{status:?}");
    }

    /// Waits for the end.
    pub(crate) fn status(&mut self) -> Option<i32> {
        self.child.wait().expect("waited for").code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, or a test has failed.
        match self.child.kill() {
            Err(error) if error.kind() != ErrorKind::InvalidInput => eprintln!("{error}"),
            _ => drop(self.child.wait()),
        }
    }
}

fn command(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this file has a name"));
    command.env(ROLE, role).env(DRIVER, *CHOSEN.lock().expect("not poisoned"));
    command
}

/// Leads a new session whose terminal is standard input.
fn own_terminal() -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    Ok(())
}
