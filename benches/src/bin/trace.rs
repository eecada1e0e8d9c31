//! What `vmm run --trace` costs a disk.
//!
//! ```text
//! cargo run --release -p benches --bin trace -- ROUNDS [OPTION-OF-VMM-RUN...]
//! ```
//!
//! The built-in guest reads at depth 1 and 32 from the page cache, in turns with and without a trace. At that
//! rate writing down is most expensive, and nothing of a slow disk hides it. A host may be half as fast for some
//! seconds: the cost is that between two turns that follow each other, and the median of all rounds counts.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

/// Size of the disk.
const DISK_BYTES: usize = 64 << 20;
/// How long the guest reads in each turn: many short turns bear a host that changes its pace better than few long ones.
const TURN: &str = "ms=500";

fn main() {
    benches::help("trace [ROUNDS [OPTION-OF-VMM-RUN...]]");
    let rounds = benches::rounds();
    let options: Vec<_> = std::env::args_os().skip(2).collect();
    let folder = benches::scratch();
    let (disk, trace) = (folder.path().join("disk"), folder.path().join("trace"));
    // Written, so that reads come from the page cache and not from holes.
    fs::write(&disk, vec![0x5a; DISK_BYTES]).expect("makes a disk");
    File::open(&disk).and_then(|file| file.sync_all()).expect("writes the disk");
    for depth in [1, 32] {
        let (mut without, mut with, mut costs) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes_each = 0;
        for round in 0..=rounds {
            let plain = || reads(vmm(&disk, depth).args(&options));
            let traced = || reads(vmm(&disk, depth).arg("--trace").arg(&trace).args(&options));
            // Each is first in every second round: what comes and goes with time is no part of the cost.
            let (plain, traced) = if round % 2 == 0 {
                let plain = plain();
                (plain, traced())
            } else {
                let traced = traced();
                (plain(), traced)
            };
            // The first brings files into the page cache.
            if round > 0 {
                without.push(plain);
                with.push(traced);
                costs.push(1000 - 1000 * traced / plain.max(1));
            }
            bytes_each = fs::metadata(&trace).expect("a trace").len() / traced.max(1) as u64;
        }
        let (without, with, cost) = (Spread::of(without), Spread::of(with), Spread::of(costs));
        println!(
            "depth {depth}: {without} reads without a trace, {with} with one; {:.1} % less ({:.1} to {:.1}); \
             {bytes_each} bytes each",
            percent(cost.median),
            percent(cost.quartiles[0]),
            percent(cost.quartiles[1]),
        );
    }
}

fn percent(thousandths: i64) -> f64 {
    thousandths as f64 / 10.0
}

/// What several turns came to: half of them lie between the quartiles.
struct Spread<T> {
    median: T,
    quartiles: [T; 2],
}

impl<T: Copy + Ord> Spread<T> {
    fn of(mut values: Vec<T>) -> Self {
        values.sort_unstable();
        let part = |quarters: usize| values[(values.len() - 1) * quarters / 4];
        Self { median: part(2), quartiles: [part(1), part(3)] }
    }
}

impl<T: fmt::Display> fmt::Display for Spread<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({} to {})", self.median, self.quartiles[0], self.quartiles[1])
    }
}

fn vmm(disk: &Path, depth: u32) -> Command {
    let mut command = Command::new(benches::vmm());
    command.args(["run", "--disk"]).arg(format!("path={}", disk.display()));
    command.args(["-p", "blk=read", "-p", TURN, "-p", &format!("depth={depth}")]);
    command.stdin(Stdio::null());
    command
}

/// How many there were.
fn reads(vmm: &mut Command) -> i64 {
    let said = vmm.output().expect("starts vmm");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let count = said.lines().find_map(|line| {
        let (count, _) = line.strip_prefix("blk: ")?.split_once(" ios")?;
        count.parse().ok()
    });
    count.unwrap_or_else(|| panic!("the guest reports no load: {said}"))
}
