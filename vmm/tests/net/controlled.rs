//! A machine whose network sends for ever and is changed meanwhile.

use std::fs::File;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::machine::INTERFACE;

const VMM: &str = env!("CARGO_BIN_EXE_vmm");
/// Longer than anything here takes, so that a hang becomes a failure.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often to look for what comes by itself.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits until something holds.
fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = holds() {
            return value;
        }
        assert!(Instant::now() < end, "still waiting: {what}");
        std::thread::sleep(INTERVAL);
    }
}

/// Called `lan` by its user. It ends with this.
pub(crate) struct Controlled {
    folder: TempDir,
    child: Child,
}

impl Controlled {
    /// Starts it and waits until it listens.
    pub(crate) fn start(placement: &[&str], net: &str, words: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let log = File::create(folder.path().join("log")).expect("a log");
        let child = Command::new(VMM)
            .args(["run", "--control", "vm.sock", "--net"])
            .arg(format!("tap={INTERFACE},id=lan{net}"))
            .args(placement)
            .args(["-p", words])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("vmm starts");
        let mut machine = Self { folder, child };
        until("the machine listens", || {
            let ended = machine.child.try_wait().expect("it can be waited for");
            let log = std::fs::read_to_string(machine.folder.path().join("log"));
            assert!(ended.is_none(), "{ended:?}: {log:?}");
            machine.ctl(&["status"]).status.success().then_some(())
        });
        machine
    }

    fn ctl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(VMM);
        command.args(["ctl", "vm.sock"]).args(arguments).current_dir(self.folder.path());
        command.stdin(Stdio::null()).output().expect("the binary starts")
    }

    /// A command that has to succeed; its output.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {words}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// After this nothing is under way that was begun before.
    pub(crate) fn settle(&self) {
        self.done(&["pause"]);
        self.done(&["resume"]);
    }

    /// Buffers of the receive queue (0) or the transmit queue (1) that the guest got back.
    pub(crate) fn given_back(&self, queue: usize) -> u64 {
        let start = format!("vmm_queue_requests_total{{device=\"net0\",queue=\"{queue}\"}} ");
        let text = self.done(&["metrics"]);
        let value = text.lines().find_map(|line| line.strip_prefix(&start)).expect("a line");
        value.parse().expect("a number")
    }

    /// Waits until there are at least so many of them.
    pub(crate) fn wait_for(&self, queue: usize, count: u64) {
        until("the network works", || (self.given_back(queue) >= count).then_some(()));
    }

    fn pid(&self) -> Option<i64> {
        let status: Value = serde_json::from_str(&self.done(&["status", "--json"])).expect("JSON");
        status["devices"][0]["pid"].as_i64()
    }

    /// Kills the process of the network and waits for its successor.
    pub(crate) fn kill_network(&self) {
        let pid = until("the network has a process", || self.pid());
        let process = Pid::from_raw(pid as i32).expect("a process");
        kill_process(process, Signal::KILL).expect("killed");
        until("there is a successor", || self.pid().filter(|new| *new != pid));
    }
}

impl Drop for Controlled {
    fn drop(&mut self) {
        // In order, so that nobody holds the interface any more. It may have ended by itself.
        if !self.ctl(&["stop"]).status.success() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
