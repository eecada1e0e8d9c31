//! A machine on a host that refuses what a sandbox takes.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use crate::ROLE;

/// Whether machines run here.
pub(crate) fn missing() -> Option<String> {
    kvm_ioctls::Kvm::new().err().map(|error| format!("/dev/kvm: {}", std::io::Error::from(error)))
}

/// It ends with the status and the hint of a start that failed, however early it is noticed.
pub(crate) fn a_host_without_namespaces_is_a_start_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk.img");
    File::create(&disk).and_then(|file| file.set_len(1 << 20)).expect("a disk");
    let output = Command::new("/proc/self/exe")
        .arg(&disk)
        .env(ROLE, "refused machine")
        .stdin(Stdio::null())
        .output()
        .expect("this program runs again");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(35), "{words}");
    assert!(words.contains("error: cannot run devices in sandboxes"), "{words}");
    assert!(words.contains("hint: `vmm doctor` says what the sandbox lacks"), "{words}");
}

/// Becomes a machine where no namespace can be made, as in many containers.
pub(crate) fn play_machine() -> ExitCode {
    crate::forbid("unshare");
    let disk = std::env::args().nth(1).expect("a disk");
    let error = Command::new(env!("CARGO_BIN_EXE_vmm"))
        .args(["run", "-p", "hold=600", "--disk"])
        .arg(format!("path={disk}"))
        .exec();
    panic!("no machine: {error}");
}
