//! A machine with the built-in guest and one network.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

/// The interface of a test, in a namespace of its own.
pub(crate) const INTERFACE: &str = "t0";
/// How long a process may take to be there.
const START: Duration = Duration::from_secs(20);

/// Where the back end runs, and over which rings and queues.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) placement: &'static [&'static str],
    pub(crate) ring: &'static str,
    pub(crate) queues: u16,
}

/// All that there are.
pub(crate) fn setups() -> Vec<Setup> {
    let mut setups = Vec::new();
    for placement in [&[][..], &["--single-process"]] {
        for ring in ["split", "packed"] {
            for queues in [1, 4] {
                setups.push(Setup { placement, ring, queues });
            }
        }
    }
    setups
}

/// What the guest says at the end.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) failed: u32,
    pub(crate) networks: Vec<Load>,
}

/// What its network load came to.
#[derive(Debug, Deserialize)]
pub(crate) struct Load {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) checksum_errors: u64,
    pub(crate) resets: u64,
}

pub(crate) struct Machine {
    child: Child,
    /// Processes of the network, one after the other.
    processes: Receiver<i32>,
    log: JoinHandle<String>,
    output: BufReader<ChildStdout>,
}

impl Machine {
    /// Starts a machine; the guest's words are beside `json`.
    pub(crate) fn start(setup: Setup, net: &str, words: &str) -> Self {
        let Setup { placement, ring, queues } = setup;
        let mut child = Command::new(env!("CARGO_BIN_EXE_vmm"))
            .args(["-v", "run", "--net"])
            .arg(format!("tap={INTERFACE},queues={queues}{net}"))
            .args(placement)
            .args(["-p", &format!("json ring={ring} {words}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_remove("VMM_LOG")
            .spawn()
            .expect("vmm starts");
        let log = BufReader::new(child.stderr.take().expect("a pipe"));
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, processes) = channel();
        let log = std::thread::spawn(move || {
            let mut all = String::new();
            for line in log.lines().map_while(Result::ok) {
                let process = line.split("served by process ").nth(1);
                if let Some(process) = process.and_then(|process| process.parse().ok()) {
                    // Not every test listens.
                    let _ = sender.send(process);
                }
                all.push_str(&line);
                all.push('\n');
            }
            all
        });
        Self { child, processes, log, output }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("waits").is_some()
    }

    /// Kills the process that serves the network; there is another one each time.
    pub(crate) fn kill_network(&self) {
        let process = self.processes.recv_timeout(START).expect("a process serves the network");
        let process = Pid::from_raw(process).expect("a process");
        kill_process(process, Signal::KILL).expect("it can be killed");
    }

    /// Waits for the end: what the guest reports. All its checks passed.
    pub(crate) fn finish(mut self) -> Report {
        let mut output = String::new();
        self.output.read_to_string(&mut output).expect("its output");
        let status = self.child.wait().expect("it ends");
        let log = self.log.join().expect("its log");
        let report = output.lines().find(|line| line.starts_with('{'));
        let report = report.unwrap_or_else(|| panic!("{status}, no report: {output}{log}"));
        let parsed: Report = serde_json::from_str(report).expect("a report");
        assert!(status.success() && parsed.failed == 0, "{status}: {report}\n{log}");
        parsed
    }
}
