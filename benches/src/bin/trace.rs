//! What `vmm run --trace` costs a disk.
//!
//! ```text
//! cargo run --release -p benches --bin trace -- ROUNDS [OPTION-OF-VMM-RUN...]
//! ```
//!
//! The built-in guest reads at depth 1 and 32 from the page cache, in turns with and without a trace. At that
//! rate writing down is most expensive, and nothing of a slow disk hides it.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

/// Size of the disk.
const DISK_BYTES: usize = 64 << 20;
/// How long the guest reads in each turn.
const SECONDS: &str = "seconds=1";

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let rounds = arguments.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(7).max(1);
    let options: Vec<_> = arguments.collect();
    let folder = benches::scratch();
    let (disk, trace) = (folder.path().join("disk"), folder.path().join("trace"));
    // Written, so that reads come from the page cache and not from holes.
    fs::write(&disk, vec![0x5a; DISK_BYTES]).expect("makes a disk");
    File::open(&disk).and_then(|file| file.sync_all()).expect("writes the disk");
    for depth in [1, 32] {
        let mut rates = [Vec::new(), Vec::new()];
        let (mut bytes, mut requests) = (0, 0);
        for round in 0..=rounds {
            for (traced, rates) in rates.iter_mut().enumerate() {
                let mut vmm = vmm(&disk, depth);
                if traced == 1 {
                    vmm.arg("--trace").arg(&trace);
                }
                let reads = reads(vmm.args(&options));
                // The first brings files into the page cache.
                if round > 0 {
                    rates.push(reads);
                }
                if traced == 1 {
                    (bytes, requests) = (fs::metadata(&trace).expect("a trace").len(), reads);
                }
            }
        }
        let [without, with] = rates.map(Spread::of);
        let cost = 100.0 * (1.0 - with.median as f64 / without.median as f64);
        println!(
            "depth {depth}: {without} reads without a trace, {with} with one: {cost:.1} % less; {} bytes each",
            bytes / requests.max(1)
        );
    }
}

/// What several turns came to.
struct Spread {
    least: u64,
    median: u64,
    most: u64,
}

impl Spread {
    fn of(mut rates: Vec<u64>) -> Self {
        rates.sort_unstable();
        let median = rates[rates.len() / 2];
        Self { least: rates[0], median, most: rates[rates.len() - 1] }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({} to {})", self.median, self.least, self.most)
    }
}

fn vmm(disk: &Path, depth: u32) -> Command {
    let mut command = Command::new(benches::vmm());
    command.args(["run", "--disk"]).arg(format!("path={}", disk.display()));
    command.args(["-p", "blk=read", "-p", SECONDS, "-p", &format!("depth={depth}")]);
    command.stdin(Stdio::null());
    command
}

/// How many there were.
fn reads(vmm: &mut Command) -> u64 {
    let said = vmm.output().expect("starts vmm");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let count = said.lines().find_map(|line| {
        let (count, _) = line.strip_prefix("blk: ")?.split_once(" ios")?;
        count.parse().ok()
    });
    count.unwrap_or_else(|| panic!("the guest reports no load: {said}"))
}
