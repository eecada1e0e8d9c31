//! The executor against tokio-uring, monoio and compio, in one run.
//!
//! ```text
//! cargo run --release -p benches --bin runtimes [ROUNDS]
//! ```
//!
//! * reads: 4 KiB at random places of a file in the page cache, at a depth of 1, 32 and 128
//! * ping-pong: one byte to and fro over a Unix socket pair, both ends on one executor
//! * spawn: a task that ends at once, and waiting for it
//! * timers: 1000 sleeps of 1 to 5 ms at once; the figure is processor time per sleep

mod workloads;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use benches::{Contestant, compare, print};
use workloads::{compio_, monoio_, ours, tokio_uring_};

/// Large enough that reads do not hit the same few pages, small enough to stay cached.
const FILE_BYTES: usize = 64 << 20;
/// Bytes of a read.
pub(crate) const BLOCK: usize = 4096;
/// Blocks in the file.
pub(crate) const BLOCKS: u64 = (FILE_BYTES / BLOCK) as u64;

fn main() {
    benches::help("runtimes [ROUNDS]");
    let rounds = benches::rounds();
    // On the disk of the build and not in /tmp: a tmpfs cannot do reads without waiting, and every
    // runtime would measure the kernel's worker threads.
    let folder = tempfile::tempdir_in(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("a folder");
    let path: Arc<Path> = folder.path().join("data").into();
    let mut file = File::create(&path).expect("a file");
    for _ in 0..FILE_BYTES / (1 << 20) {
        file.write_all(&vec![0x5a; 1 << 20]).expect("writes the file");
    }
    file.sync_all().expect("syncs the file");

    for depth in [1, 32, 128] {
        let contestants = [
            with_path("executor", &path, depth, ours::reads),
            with_path("tokio-uring", &path, depth, tokio_uring_::reads),
            with_path("monoio", &path, depth, monoio_::reads),
            with_path("compio", &path, depth, compio_::reads),
        ];
        print(&format!("4 KiB reads, depth {depth}"), &compare(&contestants, 100_000, rounds));
    }
    let contestants = [
        Contestant::new("executor", ours::ping_pong),
        Contestant::new("tokio-uring", tokio_uring_::ping_pong),
        Contestant::new("monoio", monoio_::ping_pong),
        Contestant::new("compio", compio_::ping_pong),
    ];
    print("socket ping-pong", &compare(&contestants, 30_000, rounds));
    let contestants = [
        Contestant::new("executor", ours::spawns),
        Contestant::new("tokio-uring", tokio_uring_::spawns),
        Contestant::new("monoio", monoio_::spawns),
        Contestant::new("compio", compio_::spawns),
    ];
    print("spawn and join", &compare(&contestants, 1_000_000, rounds));
    let contestants = [
        Contestant::new("executor", ours::timers),
        Contestant::new("tokio-uring", tokio_uring_::timers),
        Contestant::new("monoio", monoio_::timers),
        Contestant::new("compio", compio_::timers),
    ];
    print("timers (processor time)", &compare(&contestants, 50_000, rounds));
}

fn with_path(
    name: &'static str,
    path: &Arc<Path>,
    depth: u64,
    run: fn(&Path, u64, u64) -> std::time::Duration,
) -> Contestant {
    let path = Arc::clone(path);
    Contestant::new(name, move |operations| run(&path, depth, operations))
}
