//! A machine in a folder of its own, and `vmm ctl` for it.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
const VMM: &str = env!("CARGO_BIN_EXE_vmm");
/// Longer than anything here takes, so that a hang becomes a failure.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often to look for what comes by itself.
const INTERVAL: Duration = Duration::from_millis(5);

pub(crate) const DISK_BYTES: u64 = 16 << 20;
/// A load that lasts until it is stopped.
pub(crate) const ENDLESS: &str = "check=cpu blk=read depth=8 seconds=1000000";
/// One that compares what it reads back, until [`Machine::end_load`].
pub(crate) const VERIFYING: &str = "check=cpu blk=verify depth=8 seconds=1000000";

/// Says why no machine runs here, in the form that the runner of all tests counts.
pub(crate) fn has_kvm() -> bool {
    match kvm_ioctls::Kvm::new() {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: /dev/kvm: {}", std::io::Error::from(error));
            false
        }
    }
}

/// Waits until something holds.
pub(crate) fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = holds() {
            return value;
        }
        assert!(Instant::now() < end, "still waiting: {what}");
        std::thread::sleep(INTERVAL);
    }
}

/// What a command has said.
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        Self { status: output.status.code(), out, err }
    }
}

pub(crate) fn ctl_at(folder: &Path, arguments: &[&str]) -> Said {
    vmm_at(folder, &[&["ctl"], arguments].concat())
}

/// Names of machines are kept in the same folder.
pub(crate) fn vmm_at(folder: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new(VMM);
    command.args(arguments).current_dir(folder).env("XDG_RUNTIME_DIR", folder);
    command.stdin(Stdio::null()).output().expect("the binary starts").into()
}

/// A machine with a disk, `disk.img`, and a socket, `vm.sock`. It ends with this.
pub(crate) struct Machine {
    pub(crate) folder: TempDir,
    child: Child,
}

impl Machine {
    /// Starts it and waits until it listens.
    pub(crate) fn start(words: &str, options: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let disk = File::create(folder.path().join("disk.img")).expect("a disk");
        disk.set_len(DISK_BYTES).expect("sized");
        let log = File::create(folder.path().join("log")).expect("a log");
        let output = File::create(folder.path().join("output")).expect("an output");
        let mut command = Command::new(VMM);
        command.args(["run", "--control", "vm.sock", "--disk", "path=disk.img,id=data"]);
        command.args(["--cmdline", words]).args(options).current_dir(folder.path());
        command.env("XDG_RUNTIME_DIR", folder.path());
        command.stdin(Stdio::piped()).stdout(output).stderr(log).env_remove("VMM_LOG");
        let child = command.spawn().expect("the binary starts");
        let mut machine = Self { folder, child };
        until("the machine listens", || {
            let ended = machine.child.try_wait().expect("it can be waited for");
            assert!(ended.is_none(), "{ended:?}: {}", machine.text("log"));
            UnixStream::connect(machine.path("vm.sock")).ok()
        });
        machine
    }

    /// The number of the machine's own process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("it is readable")
    }

    pub(crate) fn ctl(&self, arguments: &[&str]) -> Said {
        ctl_at(self.folder.path(), &[&["vm.sock"], arguments].concat())
    }

    /// A command that has to succeed; its output.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let said = self.ctl(arguments);
        let log = self.text("log");
        assert_eq!((said.status, said.err.as_str()), (Some(0), ""), "{arguments:?}: {log}");
        said.out
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.done(&["status", "--json"])).expect("one JSON value")
    }

    /// The process of the disk, once it is known.
    pub(crate) fn disk_pid(&self) -> i32 {
        until("the disk has a process", || {
            self.status()["devices"][0]["pid"].as_i64().map(|pid| pid as i32)
        })
    }

    /// What the disk has done.
    pub(crate) fn requests(&self) -> u64 {
        let text = self.done(&["metrics"]);
        let line = text.lines().find(|line| line.starts_with("vmm_queue_requests_total{"));
        let value = line.and_then(|line| line.rsplit(' ').next()).expect("a value");
        value.parse().expect("a number")
    }

    /// Waits until the disk has done more than this.
    pub(crate) fn requests_after(&self, before: u64) -> u64 {
        until("the disk works", || Some(self.requests()).filter(|requests| *requests > before))
    }

    /// Has the guest end its load and say what came of it.
    pub(crate) fn end_load(&mut self) {
        let keys = self.child.stdin.as_mut().expect("a pipe");
        keys.write_all(b"q").expect("the machine takes keys");
    }

    pub(crate) fn wait(&mut self) -> Option<i32> {
        let status: ExitStatus =
            until("the machine ends", || self.child.try_wait().expect("it can be waited for"));
        status.code()
    }

    /// `vmm ctl` that goes on beside the test.
    pub(crate) fn ctl_beside(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(VMM);
        command.args(["ctl", "vm.sock"]).args(arguments).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().expect("the binary starts")
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it is gone");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
