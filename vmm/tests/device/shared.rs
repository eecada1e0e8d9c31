//! Shared directories.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use loadgen::virtio_fs::{FsAmounts, OpenedMany, VirtioFs};
use loadgen::{Placement, Polling};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::support::{Device, connect};

#[test]
fn a_guest_that_opens_100_000_files_is_refused_some_and_served_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shared, socket) = (folder.path().join("shared"), folder.path().join("socket"));
    fs::create_dir(&shared).expect("makes");
    fs::write(shared.join("file"), "text").expect("writes");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
    command.args(["device", "fs", "--once", "--socket"]).arg(&socket);
    command.arg(format!("path={},tag=tag", shared.display()));
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = Rlimit { current: Some(2000), maximum: Some(2000) };
            Ok(setrlimit(Resource::Nofile, limit)?)
        });
    }
    let mut device = Device(command.spawn().expect("the binary starts"));
    let amounts =
        FsAmounts { new: 0, random: 0, polling: Polling::Adaptive, placement: Placement::Anywhere };
    let driver = VirtioFs::new(connect(&socket), amounts).expect("a driver");
    // Any other answer than a handle or EMFILE is an error here.
    let OpenedMany { opened, refused } = driver.open_many("file", 100_000).expect("answers");
    assert_eq!(opened + refused, 100_000);
    assert!((1700..2000).contains(&opened), "{opened} were opened");
    // One process served all of that: another one would have ended the connection.
    drop(driver);
    assert!(device.0.wait().expect("ends").success());
}
