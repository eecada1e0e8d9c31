//! Machines for tests of other programs: start one, run commands in it, copy files, look at what came back.
//!
//! ```no_run
//! use vmm::test::Machine;
//!
//! let machine = Machine::builder().option("--memory").option("512M").start()?;
//! machine.copy_in("service.toml", "/etc")?;
//! let output = machine.exec(["sh", "-c", "grep -c port /etc/service.toml"])?.success();
//! assert_eq!(output.stdout(), "1\n");
//! assert_eq!(machine.exec(["false"])?.status, 1);
//! machine.copy_out("/var/log/service.log", ".")?;
//! # Ok::<(), vmm::test::TestError>(())
//! ```
//!
//! A machine is a `vmm exec` of the program `vmm`, and every command one more, so that a test needs neither an
//! executor nor threads of its own. It ends when it is dropped, and with the test's process.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::folder::Folder;

/// What a machine gets to start, and each command to end, if nobody says otherwise.
const PATIENCE: Duration = Duration::from_mins(2);
/// What a machine gets to end by itself.
const GOODBYE: Duration = Duration::from_secs(10);
/// How often its end is looked for meanwhile.
const INTERVAL: Duration = Duration::from_millis(20);
/// What the guest says when it runs, and what keeps it running until its input ends.
const READY: &str = "ready\n";
const LIFE: [&str; 3] = ["sh", "-c", "echo ready; exec cat"];

/// Why a test has no machine, or no answer of one.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// The host refused something.
    #[error("cannot {doing}")]
    Host {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The machine did not come so far that a command could run.
    #[error("the machine did not start: {messages}")]
    NotStarted {
        /// What it said.
        messages: String,
    },
    /// A file could not be copied.
    #[error("cannot copy: {messages}")]
    Copy {
        /// What was said.
        messages: String,
    },
}

impl TestError {
    fn host(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Host { doing, source }
    }
}

/// What a machine shall be.
#[derive(Debug, Clone)]
pub struct Builder {
    program: PathBuf,
    options: Vec<OsString>,
    patience: Duration,
}

impl Builder {
    /// One more word of `vmm exec`'s options, such as `--kernel` and then its file.
    #[must_use]
    pub fn option(mut self, word: impl AsRef<OsStr>) -> Self {
        self.options.push(word.as_ref().to_owned());
        self
    }

    /// The program `vmm`, if it is not the one in PATH.
    #[must_use]
    pub fn program(mut self, path: impl AsRef<Path>) -> Self {
        path.as_ref().clone_into(&mut self.program);
        self
    }

    /// What the machine gets to start, and each command to end.
    #[must_use]
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }

    /// Starts it, and waits until commands can run.
    pub fn start(self) -> Result<Machine, TestError> {
        let Self { program, options, patience } = self;
        let starting = TestError::host("start the machine");
        let folder = Folder::create().map_err(&starting)?;
        let socket = folder.file("vm.sock");
        let messages = folder.file("messages");
        let mut vsock = OsString::from("path=");
        vsock.push(&socket);
        let mut child = Command::new(&program)
            .arg("exec")
            .arg("--vsock")
            .arg(vsock)
            .args(options)
            .arg("--")
            .args(LIFE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&messages).map_err(&starting)?)
            .spawn()
            .map_err(&starting)?;
        let life = child.stdin.take();
        let stdout = child.stdout.take();
        let mut machine = Machine { program, socket, patience, child, life, _folder: folder };
        let is_ready = stdout.map(|stdout| hear(stdout, Instant::now() + patience));
        if is_ready.transpose().map_err(starting)? == Some(true) {
            return Ok(machine);
        }
        machine.end();
        let messages = fs::read(messages).unwrap_or_default();
        Err(TestError::NotStarted { messages: text(&messages).trim_end().to_owned() })
    }
}

/// Waits until the guest has said that it runs. Says whether it has.
fn hear(mut stdout: impl Read + AsFd, deadline: Instant) -> io::Result<bool> {
    let mut heard: Vec<u8> = Vec::new();
    while heard.len() < READY.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&left))? == 0 {
            return Ok(false);
        }
        let mut buffer = [0; READY.len()];
        match stdout.read(&mut buffer)? {
            0 => return Ok(false),
            count => heard.extend(&buffer[..count]),
        }
    }
    Ok(heard == READY.as_bytes())
}

/// A machine that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Machine {
    program: PathBuf,
    socket: PathBuf,
    patience: Duration,
    child: Child,
    /// Open as long as the machine shall run.
    life: Option<ChildStdin>,
    _folder: Folder,
}

impl Machine {
    /// A machine as `vmm exec` makes it without options.
    pub fn builder() -> Builder {
        Builder { program: "vmm".into(), options: Vec::new(), patience: PATIENCE }
    }

    /// The socket of its vsock device, for whatever else `vmm` does with machines that run.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs a command to its end, without input.
    pub fn exec<W: AsRef<OsStr>>(
        &self,
        command: impl IntoIterator<Item = W>,
    ) -> Result<Output, TestError> {
        let mut exec = Command::new(&self.program);
        exec.arg("exec").arg("--in").arg(&self.socket);
        exec.arg("--timeout").arg(format!("{}ms", self.patience.as_millis()));
        run(exec.arg("--").args(command), "run a command")
    }

    /// Copies a file into the guest, to a path or into a folder.
    pub fn copy_in(&self, file: impl AsRef<Path>, to: &str) -> Result<(), TestError> {
        self.copy(file.as_ref().as_os_str(), &self.inside(to))
    }

    /// Copies a file out of the guest, to a path or into a folder.
    pub fn copy_out(&self, file: &str, to: impl AsRef<Path>) -> Result<(), TestError> {
        self.copy(&self.inside(file), to.as_ref().as_os_str())
    }

    fn inside(&self, path: &str) -> OsString {
        let mut place = self.socket.clone().into_os_string();
        place.push(":");
        place.push(path);
        place
    }

    fn copy(&self, from: &OsStr, to: &OsStr) -> Result<(), TestError> {
        let output = run(Command::new(&self.program).arg("cp").args([from, to]), "copy a file")?;
        match output.status {
            0 => Ok(()),
            _ => Err(TestError::Copy { messages: output.stderr().trim_end().to_owned() }),
        }
    }

    fn end(&mut self) {
        self.life = None;
        let deadline = Instant::now() + GOODBYE;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(INTERVAL),
                _ => return,
            }
        }
        // Its machine goes with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(command: &mut Command, doing: &'static str) -> Result<Output, TestError> {
    let output = command.stdin(Stdio::null()).output().map_err(TestError::host(doing))?;
    let status = output.status.code().unwrap_or(i32::from(crate::exec::status::FAILED));
    Ok(Output { status, stdout: output.stdout, stderr: output.stderr })
}

/// What a command has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit status, or one of [`crate::exec::status`].
    pub status: i32,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Output {
    /// What it wrote to standard output; what is no UTF-8 is U+FFFD.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// The same for standard error.
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Its standard output as it is.
    pub fn bytes(&self) -> &[u8] {
        &self.stdout
    }

    /// Itself, if the command has succeeded.
    ///
    /// # Panics
    ///
    /// If it has not, with what it wrote.
    #[must_use]
    #[track_caller]
    pub fn success(self) -> Self {
        let Self { status, .. } = self;
        assert!(status == 0, "status {status}\n{}{}", self.stdout(), self.stderr());
        self
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program that stands in for `vmm`: it runs commands here.
    fn stand_in(folder: &Path, start: &str) -> Builder {
        let path = folder.join("vmm");
        let script = format!(
            "#!/bin/sh\n\
             if [ $1 = cp ]; then echo no such file >&2; exit 1; fi\n\
             if [ $2 = --vsock ]; then {start}; fi\n\
             while [ $1 != -- ]; do shift; done; shift; exec \"$@\"\n"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Machine::builder().program(path)
    }

    #[test]
    fn commands_have_status_and_streams() {
        let folder = tempfile::tempdir().unwrap();
        let machine = stand_in(folder.path(), ":").start().unwrap();
        let output = machine.exec(["sh", "-c", "echo out; echo err >&2; exit 7"]).unwrap();
        assert_eq!(
            (output.status, output.stdout(), output.stderr()),
            (7, "out\n".into(), "err\n".into())
        );
        assert_eq!(machine.exec(["echo", "x"]).unwrap().success().bytes(), b"x\n");
        let error = machine.copy_out("/no/such", ".").unwrap_err();
        assert_eq!(error.to_string(), "cannot copy: no such file");
    }

    #[test]
    fn a_machine_that_does_not_start_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let error = stand_in(folder.path(), "echo no kernel >&2; exit 125").start().unwrap_err();
        assert_eq!(error.to_string(), "the machine did not start: no kernel");
        let error = Machine::builder().program(folder.path().join("none")).start().unwrap_err();
        assert!(matches!(error, TestError::Host { .. }));
    }
}
