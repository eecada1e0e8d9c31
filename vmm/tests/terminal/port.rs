//! The process under test: a serial port on standard input and output with a device that echoes.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Weak};

use executor::{Config, DriverChoice, Executor};
use rustix::process::{Pid, Signal, kill_process};
use vmm::config::SerialConfig;
use vmm::outcome::Outcome;
use vmm::serial_port::{Guest, Line, Receive, SerialPort};
use vmm::signals::Signals;

use crate::process::{DRIVER, ROLE};

/// Sends back what arrives.
struct Echo {
    line: Weak<Line>,
    role: Role,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Listening,
    Deaf,
    Panicking,
}

impl Receive for Echo {
    fn receive(&self, bytes: &[u8]) -> usize {
        assert!(self.role != Role::Panicking, "as was asked for");
        if let Some(line) = self.line.upgrade() {
            line.send(bytes);
        }
        bytes.len()
    }

    fn is_listening(&self) -> bool {
        self.role != Role::Deaf
    }
}

pub(crate) fn play(role: &str) -> ExitCode {
    match role {
        "leader" => lead(),
        "deaf" => run(Role::Deaf),
        "panicking" => run(Role::Panicking),
        _ => run(Role::Listening),
    }
}

fn run(role: Role) -> ExitCode {
    let signals = Signals::block().expect("signals are blocked");
    let port = SerialPort::open(&SerialConfig::Stdio, Guest::Kernel).expect("opened");
    let line = port.line();
    let driver = match std::env::var(DRIVER).as_deref() {
        Ok("epoll") => DriverChoice::Epoll,
        _ => DriverChoice::Auto,
    };
    let config = Config { driver, ..Config::default() };
    let mut executor = Executor::new(&config).expect("an executor");
    let number = executor.block_on(async {
        let mut listener = signals.listen().expect("listening");
        let device = Arc::new(Echo { line: Arc::downgrade(&line), role });
        let port = port.connect(device).expect("connected");
        line.send(if port.terminal().is_some() { b"ready\r\n" } else { b"ready\n" });
        let number = listener.ending(port.terminal().as_deref(), || ()).await.expect("a signal");
        line.send(b"last words\r\n");
        port.finish().await;
        number
    });
    ExitCode::from(Outcome::Signal(number).exit_code())
}

/// Leads a session, keeps its terminal, and runs the port in the background.
fn lead() -> ExitCode {
    let signals = Signals::block().expect("signals are blocked");
    let mut job = Command::new(std::env::current_exe().expect("this file has a name"));
    let mut job = job.env(ROLE, "listening").process_group(0).spawn().expect("started");
    let pid = Pid::from_child(&job);
    let mut executor = Executor::new(&Config::default()).expect("an executor");
    executor.block_on(async {
        let mut listener = signals.listen().expect("listening");
        listener.ending(None, || ()).await.expect("a signal");
    });
    kill_process(pid, Signal::TERM).expect("the job is there");
    let status = job.wait().expect("waited for");
    ExitCode::from(status.code().map_or(1, |code| code as u8))
}
