//! An agent of the test's own, and commands in it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::thread::JoinHandle;

use agent_client::{Command, Event, Guest, HostStreams, ReadyListener, Run, Session, run};
use executor::{Config, DriverChoice, Executor, Fd};
use proto::credentials::Secret;
use tempfile::TempDir;

/// An agent that is ready. It is killed when the test is over.
pub(crate) struct Agent {
    pub(crate) folder: TempDir,
    pub(crate) process: Child,
    pub(crate) guest: Guest,
    pub(crate) secret: Secret,
}

impl Agent {
    /// Starts an agent and waits until it says that it is ready.
    pub(crate) async fn start() -> Self {
        Self::with_services(None).await
    }

    /// The same, for one that keeps services running.
    pub(crate) async fn with_services(services: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secret = Secret::new([0x5a; 32]);
        let secret_file = folder.path().join("secret");
        std::fs::write(&secret_file, secret.to_hex()).unwrap();
        let guest = Guest::new(folder.path().join("agent"));
        let listener = ReadyListener::bind(&guest).unwrap();
        let process = Program::new(env!("CARGO_BIN_EXE_vmm-agent"))
            .arg("--unix")
            .arg(guest.path())
            .arg("--secret-file")
            .arg(secret_file)
            .args(services.into_iter().flat_map(|folder| [Path::new("--services"), folder]))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let ready = listener.ready().await.unwrap();
        assert_eq!(ready.version, env!("CARGO_PKG_VERSION"));
        Agent { folder, process, guest, secret }
    }

    pub(crate) async fn session(&self) -> Session {
        Session::open(&self.guest, &self.secret).await.unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How many descriptors the agent has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Some tests end it themselves.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a test on an executor, under each driver.
pub(crate) fn on_executors(test: impl AsyncFn()) {
    for driver in [DriverChoice::Auto, DriverChoice::Epoll] {
        let config = Config { driver, ..Config::default() };
        Executor::new(&config).unwrap().block_on(test());
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) run: Run,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

pub(crate) fn words(argv: &[&str]) -> Command {
    Command {
        argv: argv.iter().map(|word| word.as_bytes().to_vec()).collect(),
        ..Command::default()
    }
}

pub(crate) fn shell(script: &str) -> Command {
    words(&["/bin/sh", "-c", script])
}

/// Runs a command without input.
pub(crate) async fn output(session: &Session, command: Command) -> Output {
    with_input(session, command, Vec::new()).await
}

/// Runs a command with bytes as its input.
pub(crate) async fn with_input(session: &Session, command: Command, input: Vec<u8>) -> Output {
    let (stdin, feeder) = feed(input);
    let (stdout, out) = collect();
    let (stderr, err) = collect();
    let host = HostStreams {
        stdin: Some(stdin),
        stdout: Some(stdout),
        stderr: Some(stderr),
        ..HostStreams::default()
    };
    let run = run(session, command, host, std::future::pending::<Event>).await.unwrap();
    feeder.join().unwrap();
    Output { run, stdout: out.join().unwrap(), stderr: err.join().unwrap() }
}

/// A pipe that a thread fills.
fn feed(bytes: Vec<u8>) -> (Fd, JoinHandle<()>) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let thread = std::thread::spawn(move || {
        // Who reads may not want all of it.
        let _ = writer.write_all(&bytes);
    });
    (Fd::new(reader).unwrap(), thread)
}

/// A pipe that a thread empties.
fn collect() -> (Fd, JoinHandle<Vec<u8>>) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let thread = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    });
    (Fd::new(writer).unwrap(), thread)
}

/// A fifo; whoever has it open lives.
pub(crate) fn fifo(path: &Path) {
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the name ends with a zero byte.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

/// Waits until the first byte comes and then until nobody has the fifo open.
pub(crate) fn wait_for_death(mut fifo: File) {
    let mut rest = Vec::new();
    fifo.read_to_end(&mut rest).unwrap();
}
