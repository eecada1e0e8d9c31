//! What a machine costs in memory beyond the guest's RAM.
//!
//! ```text
//! cargo run --release -p benches --bin memory [-- OPTION-OF-VMM-RUN...]
//! ```
//!
//! Starts `vmm run` with one disk and the built-in guest, which reads the disk at a depth of 32 and
//! then holds still, and waits until the disk has let go of its file's pages, as disks do that rest; adds up the proportional set sizes (`PSS`) of the process and of all that it
//! started, without the mappings of the guest's RAM; prints the largest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Size of the disk.
const DISK_BYTES: u64 = 64 << 20;
/// What the mappings of the guest's RAM are called.
const RAM: &str = "/memfd:guest-ram";
/// How many mappings are printed.
const SHOWN: usize = 14;
/// Within this time a disk rests.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// After this time processes have let go of what only their beginning took.
const BEGINNING: Duration = Duration::from_secs(3);
/// The last line before the guest holds still begins with this.
const LOADED: &str = "ok   load";

fn main() {
    benches::help("memory [OPTION-OF-VMM-RUN...]");
    let folder = benches::scratch();
    let disk = folder.path().join("disk");
    File::create(&disk).and_then(|file| file.set_len(DISK_BYTES)).expect("makes a disk");
    let mut machine = Machine(start(&disk));

    let output = machine.0.stdout.take().expect("a pipe");
    assert!(wait_for_load(output), "the guest ended before it had read its disk");

    assert!(wait_for_rest(machine.0.id(), &disk), "the disk keeps pages of its file mapped");

    let mut total = 0;
    for process in descendants(machine.0.id()) {
        let mappings = mappings(process);
        let sum: u64 = mappings.iter().map(|(_, pss)| pss).sum();
        total += sum;
        let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        println!("process {process} {}: {sum} KiB", name.trim());
        for (name, pss) in mappings.iter().take(SHOWN) {
            println!("  {pss:>6} KiB  {name}");
        }
    }
    println!("PSS outside guest RAM: {total} KiB = {:.2} MiB", total as f64 / 1024.0);
}

/// A machine that ends with this program.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("cannot end vmm: {error}");
        }
    }
}

fn start(disk: &Path) -> Child {
    let program = benches::vmm();
    Command::new(program)
        .args(["run", "--memory", "512M", "--disk"])
        .arg(format!("path={}", disk.display()))
        .args(["-p", "blk=read", "-p", "depth=32", "-p", "seconds=1", "-p", "hold=20"])
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts vmm")
}

fn wait_for_load(output: ChildStdout) -> bool {
    BufReader::new(output).lines().map_while(Result::ok).any(|line| line.starts_with(LOADED))
}

/// Until nothing of the disk's file is mapped any more.
fn wait_for_rest(machine: u32, disk: &Path) -> bool {
    let name = disk.display().to_string();
    std::thread::sleep(BEGINNING);
    let begin = Instant::now();
    while begin.elapsed() < LONGEST_REST {
        let processes = descendants(machine);
        let mut mappings = processes.into_iter().flat_map(mappings);
        if mappings.all(|(mapping, pss)| pss == 0 || !mapping.starts_with(&name)) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    false
}

/// A process and all that descend from it.
fn descendants(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let children: Vec<u32> = tasks
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|list| list.split_whitespace().map(str::parse).collect::<Vec<_>>())
            .filter_map(Result::ok)
            .collect();
        found.extend(children);
        next += 1;
    }
    found
}

/// PSS in KiB by mapping, the largest first, without guest RAM.
fn mappings(process: u32) -> Vec<(String, u64)> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps")).expect("reads smaps");
    let mut sums = BTreeMap::<String, u64>::new();
    let mut name = String::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Pss:") if !name.starts_with(RAM) => {
                let pss: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                *sums.entry(name.clone()).or_default() += pss;
            }
            Some(word) if word.contains('-') && !word.ends_with(':') => {
                let access = words.next().unwrap_or_default();
                let path: Vec<_> = words.skip(3).collect();
                name = if path.is_empty() { "anonymous".into() } else { path.join(" ") };
                name.push(' ');
                name.push_str(access);
            }
            _ => {}
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_unstable_by_key(|(_, pss)| std::cmp::Reverse(*pss));
    sums
}
