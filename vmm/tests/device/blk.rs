//! Disks.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use loadgen::virtio_blk::VirtioBlk;
use loadgen::{Access, Check, LoadError, Order, Polling, Workload};

use crate::support::{Device, connect};

const FILE_BYTES: u64 = 8 << 20;

#[test]
fn a_disk_whose_file_was_cut_answers_with_errors_and_lives() {
    let workload = Workload {
        access: Access::Read,
        check: Check::Nothing,
        order: Order::Random,
        block_size: 4096,
        depth: 8,
        queues: 1,
        threads: 1,
        polling: Polling::Adaptive,
        warm_up: Duration::from_millis(10),
        duration: Duration::from_millis(50),
    };
    // In a folder with a page cache, and in memory.
    for folder in [Path::new(env!("CARGO_TARGET_TMPDIR")), Path::new("/dev/shm")] {
        let folder = tempfile::tempdir_in(folder).expect("a folder");
        let (path, socket) = (folder.path().join("disk"), folder.path().join("socket"));
        std::fs::write(&path, vec![7; FILE_BYTES as usize]).expect("writes");
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
        command.args(["device", "blk", "--once", "--socket"]).arg(&socket);
        command.arg(format!("path={}", path.display())).stderr(Stdio::piped());
        let mut device = Device(command.spawn().expect("the binary starts"));
        let disk = VirtioBlk::new(connect(&socket), workload).expect("a driver");
        let process = device.0.id();
        assert!(disk.run(process).is_ok(), "as long as the file is whole");
        let file = File::options().write(true).open(&path).expect("opens");
        file.set_len(FILE_BYTES / 2).expect("cuts");
        // What dies ends the connection, and that would be another error.
        let error = disk.run(process).expect_err("half of the file is gone");
        assert!(matches!(error, LoadError::Request { status: 1, .. }), "{error}");
        drop(disk);
        assert!(device.0.wait().expect("ends").success());
        let said = device.0.stderr.take().map(std::io::read_to_string);
        let said = said.expect("a pipe").expect("text");
        assert!(said.contains("part of its file is gone"), "{said}");
    }
}
