//! Disks.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use loadgen::virtio_blk::VirtioBlk;
use loadgen::{Access, Check, LoadError, Order, Polling, Workload};
use tempfile::TempDir;

use crate::support::{Device, connect};

const FILE_BYTES: u64 = 8 << 20;

/// Reads and writes, with every sector compared with what was written to it.
const VERIFIED: Workload = Workload {
    access: Access::Mixed { reads: 50 },
    check: Check::Contents,
    order: Order::Random,
    block_size: 4096,
    depth: 16,
    queues: 2,
    threads: 2,
    polling: Polling::Adaptive,
    warm_up: Duration::from_millis(10),
    duration: Duration::from_millis(200),
};

/// Where a file has a page cache and can bypass it.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn serve(folder: &Path, options: &str, more: &[&str]) -> Device {
    let (path, socket) = (folder.join("disk"), folder.join("socket"));
    let _ = std::fs::remove_file(&socket);
    std::fs::write(&path, vec![7; FILE_BYTES as usize]).expect("writes");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
    command.args(["device", "blk", "--once", "--socket"]).arg(&socket).args(more);
    command.arg(format!("path={},{options}", path.display())).stderr(Stdio::piped());
    Device(command.spawn().expect("the binary starts"))
}

/// What is left on standard error when it has ended.
fn last_words(device: &mut Device) -> String {
    let said = device.0.stderr.take().map(std::io::read_to_string);
    said.expect("a pipe").expect("text")
}

/// The names of the threads of a process and of those that come from it.
fn threads(process: u32) -> Vec<String> {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let numbers = |path: &Path| -> Vec<u32> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    };
    let parent = |number: &u32| {
        let status = read(format!("/proc/{number}/status").into());
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        line.and_then(|parent| parent.trim().parse().ok())
    };
    let parents: Vec<(u32, Option<u32>)> =
        numbers(Path::new("/proc")).iter().map(|number| (*number, parent(number))).collect();
    let mut family = vec![process];
    let mut known = 0;
    while known < family.len() {
        let one = family[known];
        family.extend(parents.iter().filter(|(_, of)| *of == Some(one)).map(|(child, _)| child));
        known += 1;
    }
    let tasks = |number: &u32| {
        let folder = PathBuf::from(format!("/proc/{number}/task"));
        let tasks = numbers(&folder);
        tasks.into_iter().map(move |task| folder.join(task.to_string()).join("comm"))
    };
    family.iter().flat_map(tasks).map(read).collect()
}

#[test]
fn a_disk_that_a_thread_of_the_kernel_looks_after_keeps_what_is_written() {
    let folder = folder();
    for options in ["sqpoll", "sqpoll,direct", "direct,sqpoll-cpu=0"] {
        for more in [&[][..], &["--single-process"]] {
            let mut device = serve(folder.path(), options, more);
            let disk = VirtioBlk::new(connect(&folder.path().join("socket")), VERIFIED);
            let disk = disk.expect("a driver");
            disk.run(device.0.id()).expect("all that was written comes back");
            let threads = threads(device.0.id());
            let is_one = |name: &String| name.starts_with("iou-sqp-");
            assert!(threads.iter().any(is_one), "{options} {more:?}: {threads:?}");
            drop(disk);
            assert!(device.0.wait().expect("ends").success(), "{options} {more:?}");
            assert_eq!(last_words(&mut device), "", "{options} {more:?}");
        }
    }
}

#[test]
fn a_thread_of_the_kernel_on_a_processor_that_is_none_is_refused_at_the_start() {
    let folder = folder();
    let mut device = serve(folder.path(), "sqpoll-cpu=100000", &[]);
    assert_eq!(device.0.wait().expect("ends").code(), Some(35));
    let said = last_words(&mut device);
    assert!(said.contains("`sqpoll`") && said.contains("processor 100000"), "{said}");
}

#[test]
fn a_disk_that_can_be_polled_is_and_another_is_refused_at_the_start() {
    let folder = folder();
    let cached = {
        let mut device = serve(folder.path(), "iopoll", &[]);
        assert_eq!(device.0.wait().expect("ends").code(), Some(35));
        last_words(&mut device)
    };
    assert!(cached.contains("it takes `direct` as well"), "{cached}");
    for options in ["direct,iopoll", "direct,iopoll,sqpoll"] {
        let mut device = serve(folder.path(), options, &[]);
        if is_polled(folder.path()) {
            let disk = VirtioBlk::new(connect(&folder.path().join("socket")), VERIFIED);
            let disk = disk.expect("a driver");
            disk.run(device.0.id()).expect("all that was written comes back");
            drop(disk);
            assert!(device.0.wait().expect("ends").success(), "{options}");
        } else {
            assert_eq!(device.0.wait().expect("ends").code(), Some(35), "{options}");
            let said = last_words(&mut device);
            assert!(said.contains("cannot be polled; leave `iopoll` out"), "{said}");
        }
    }
}

/// Whether the device under a file system has queues for it.
fn is_polled(folder: &Path) -> bool {
    let device = std::fs::metadata(folder).expect("a folder").dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let base = format!("/sys/dev/block/{major}:{minor}");
    ["queue", "../queue"].iter().any(|queue| {
        let polls = std::fs::read_to_string(format!("{base}/{queue}/io_poll"));
        polls.is_ok_and(|polls| polls.trim() == "1")
    })
}

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
