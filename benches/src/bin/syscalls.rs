//! System calls of the device thread for each 4 KiB read of the guest.
//!
//! ```text
//! cargo run --release -p benches --bin syscalls [-- OPTION-OF-VMM-RUN...]
//! ```
//!
//! Starts `vmm run` with the built-in guest, which reads the disk at random places, polling, and
//! `strace -c` on the thread that serves the disk, from before the first read to the last. All system
//! calls of that thread count, whatever they are for. With `--single-process`, so that the thread can
//! be found by its name; in a process of its own it runs the same code.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Size of the disk.
const DISK_BYTES: u64 = 64 << 20;
/// How long the guest reads.
const SECONDS: &str = "seconds=3";
/// How long the device thread may take to appear.
const PATIENCE: Duration = Duration::from_secs(5);
/// The name of the thread or process that serves the first disk.
const DEVICE: &str = "blk0";

fn main() {
    benches::help("syscalls [OPTION-OF-VMM-RUN...]");
    for depth in [1, 32] {
        let (reads, calls) = measure(depth);
        let total: u64 = calls.iter().map(|(_, count)| count).sum();
        let each = total as f64 / reads as f64;
        println!("depth {depth}: {reads} reads, {total} system calls, {each:.4} for each read");
        for (name, count) in calls {
            println!("  {count:>9}  {name}");
        }
    }
}

/// How many reads there were, and how many of each system call.
fn measure(depth: u32) -> (u64, Vec<(String, u64)>) {
    let folder = benches::scratch();
    let (disk, report) = (folder.path().join("disk"), folder.path().join("strace"));
    // Written, so that reads come from the page cache and not from holes.
    fs::write(&disk, vec![0x5a; DISK_BYTES as usize]).expect("makes a disk");
    File::open(&disk).and_then(|file| file.sync_all()).expect("writes the disk");

    let mut vmm = start(&disk, depth);
    let device = device_thread(vmm.id());
    let mut strace = Command::new("strace")
        .args(["-c", "-U", "calls,name", "-p", &device.to_string(), "-o"])
        .arg(&report)
        .stderr(Stdio::null())
        .spawn()
        .expect("starts strace");
    let reads = BufReader::new(vmm.stdout.take().expect("a pipe"))
        .lines()
        .map_while(Result::ok)
        .find_map(|line| {
            let (count, _) = line.strip_prefix("blk: ")?.split_once(" ios")?;
            count.parse().ok()
        })
        .expect("the guest reports its load");
    vmm.wait().expect("vmm ends");
    strace.wait().expect("strace ends");
    (reads, counts(&fs::read_to_string(&report).expect("strace reports")))
}

fn start(disk: &Path, depth: u32) -> Child {
    let program = benches::vmm();
    Command::new(program)
        .args(["run", "--single-process", "--disk"])
        .arg(format!("path={}", disk.display()))
        .args(["-p", "blk=read", "-p", SECONDS, "-p", &format!("depth={depth}")])
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts vmm")
}

/// The thread of `root` or of what it started that serves the disk.
fn device_thread(root: u32) -> u32 {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let mut processes = vec![root];
        while let Some(process) = processes.pop() {
            for task in
                fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten()
            {
                let read =
                    |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
                if read("comm").trim() == DEVICE {
                    return task
                        .file_name()
                        .to_str()
                        .and_then(|id| id.parse().ok())
                        .expect("a number");
                }
                processes.extend(
                    read("children").split_whitespace().filter_map(|id| id.parse::<u32>().ok()),
                );
            }
        }
        std::thread::yield_now();
    }
    panic!("no thread called {DEVICE} appeared");
}

/// The table of `strace -c -U calls,name`.
fn counts(report: &str) -> Vec<(String, u64)> {
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let count = words.next()?.parse().ok()?;
        let name = words.next()?.to_owned();
        (name != "total").then_some((name, count))
    };
    report.lines().filter_map(row).collect()
}
