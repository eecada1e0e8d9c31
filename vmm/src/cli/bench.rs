//! `vmm bench`: figures of devices, beside those of others.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use loadgen::frames::{Direction, Frames};
use loadgen::stream::{FrameSize, Stream};
use loadgen::virtio_fs::{FsAmounts, FsTree};
use loadgen::{Access, Check, Order, Placement, Polling, Workload};

use crate::bench::{
    self, BenchError, BlkBench, Contestant, DiskPeers, FsBench, NetBench, ProgramKind, Starter,
    TrialResults,
};
use crate::config::{ByteCount, DiskConfig};
use crate::error::Report;
use crate::outcome;

const EXAMPLES: &str = "\
Examples:
  vmm bench blk --file disk.img --create 1G
  vmm bench blk --file disk.img --depth 1,32,128 --against qemu-storage-daemon --report blk.html
  vmm bench blk --file disk.img --against installed
  vmm bench blk --file disk.img --rw randwrite --overwrite --json
  vmm bench blk --file disk.img --rw verify --overwrite
  vmm bench blk --file disk.img --against 'mine=my-backend --socket {socket} --file {file}'

A load generator plays the virtio driver over vhost-user: no KVM, no guest. All contestants take turns;
shown are medians of rounds. `native` is the faster of io_uring and pread or pwrite on the same file.
System calls are counted where the user may (root), and those of back ends alone.";

/// Measure devices, in turns with those of others
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    Blk(BlkArgs),
    Net(NetArgs),
    Fs(FsArgs),
    /// Measure messages between tasks, threads and processes
    Ipc(TrialArgs),
    /// Measure the executor with each of its drivers
    Executor(TrialArgs),
    /// Measure what it costs to leave a guest; needs KVM
    Exits(TrialArgs),
    Boot(BootArgs),
}

const BOOT_EXAMPLES: &str = "\
Examples:
  vmm bench boot vmlinux bzImage
  vmm bench boot vmlinux --against 'other=my-vmm --kernel {kernel} --disk path={disk}'

From exec to the first KVM_RUN, where a seccomp filter stops it: other VMMs need not help.
On a machine that does other things, run it under `chrt -f 10`.";

/// Measure starts of virtual machines, up to the first instruction; needs KVM
#[derive(Debug, Args)]
#[command(after_help = BOOT_EXAMPLES)]
struct BootArgs {
    /// Kernels that are started, with 512M of memory and a disk
    #[arg(required = true, value_name = "KERNEL")]
    kernels: Vec<PathBuf>,
    /// Another VMM: NAME=COMMAND with {kernel} and {disk} in it
    #[arg(long, value_name = "PEER")]
    against: Vec<Starter>,
    /// Rounds in which all take turns, after one that does not count
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// End with one line of JSON on standard output
    #[arg(long)]
    json: bool,
}

/// How small things are measured.
#[derive(Debug, Args)]
struct TrialArgs {
    /// Rounds in which all ways take turns, after one that does not count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// End with one line of JSON on standard output
    #[arg(long)]
    json: bool,
}

/// How loads that last some time are run.
#[derive(Debug, Args)]
struct Runs {
    /// What the driver does while it waits
    #[arg(long, value_enum, default_value_t = PollingChoice::Adaptive)]
    polling: PollingChoice,
    /// Seconds of each run
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds before each run that do not count
    #[arg(long, default_value_t = 0.3, value_parser = seconds)]
    warm_up: f64,
    /// Rounds in which all take turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

/// Measure disks
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct BlkArgs {
    /// The file that the back ends serve
    #[arg(long)]
    file: PathBuf,
    /// Make it if it is not there, of this size and full of random bytes
    #[arg(long, value_name = "SIZE")]
    create: Option<ByteCount>,
    /// Let workloads that write destroy what is in it
    #[arg(long)]
    overwrite: bool,
    /// What requests do
    #[arg(long, value_enum, default_value_t = Rw::Randread)]
    rw: Rw,
    /// Bytes of a request
    #[arg(long, value_name = "SIZE", default_value = "4K")]
    bs: ByteCount,
    /// Requests under way on each queue: 1 to 256, several with commas
    #[arg(long, value_delimiter = ',', default_value = "1,32", value_parser = clap::value_parser!(u16).range(1..=256))]
    depth: Vec<u16>,
    /// Queues
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    queues: u16,
    /// Threads of the load generator for the queues of a device, at most one for each [default: as many as there
    /// are processors beside one for the device]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=16))]
    threads: Option<u16>,
    /// Back ends at the same time, each a process with a load of its own; they can only read then
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    devices: u16,
    /// Where drivers and back ends run [default: apart where there are processors for that]
    #[arg(long, value_enum)]
    place: Option<PlacementChoice>,
    #[command(flatten)]
    runs: Runs,
    /// Ours with these options of `--disk` as well, several with commas: direct,sqpoll; may be repeated
    #[arg(long, value_name = "OPTIONS", value_parser = disk_options)]
    also: Vec<String>,
    /// A back end to compare with: a known one, `installed` for all of those that are, or NAME=COMMAND with {socket},
    /// {file} and {queues} in it
    #[arg(long, value_name = "PEER")]
    against: Vec<DiskPeers>,
    /// End with one line of JSON on standard output
    #[arg(long)]
    json: bool,
    /// Write a page with plots, which needs nothing else
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

const NET_EXAMPLES: &str = "\
Examples:
  vmm bench net --bytes 64,1514 --json
  vmm bench net --way send --against 'mine=my-backend --socket {socket} --tap {tap}'

Frames go through a tap in a network namespace of the run's own, so this wants root. The plain loop moves
each frame by one read or write on a tap of the same kind. Frames to be received come from a packet socket, in
a third busy thread.

Streams are TCP with the host's kernel, counted in segments of 1460 bytes and compared where they come out.
The driver has its device cut large segments up and put them together; the plain loop moves each frame of the
MTU by one read or writev, and once more large frames.";

/// Measure networks
#[derive(Debug, Args)]
#[command(after_help = NET_EXAMPLES)]
struct NetArgs {
    /// Which way frames go
    #[arg(long, value_enum, value_delimiter = ',', default_value = "send,receive")]
    way: Vec<Way>,
    /// Bytes of a single frame: 64 to 1514, several with commas
    #[arg(long, value_delimiter = ',', default_value = "64,1514", value_parser = clap::value_parser!(u16).range(64..=1514))]
    bytes: Vec<u16>,
    /// Single frames, and streams
    #[arg(long, value_enum, value_delimiter = ',', default_value = "frames,streams")]
    traffic: Vec<Traffic>,
    /// Buffers with the device at a time, for single frames: 1 to 256
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=256))]
    depth: u16,
    #[command(flatten)]
    runs: Runs,
    /// A back end to compare with: NAME=COMMAND with {socket} and {tap} in it
    #[arg(long, value_name = "PEER")]
    against: Vec<Contestant>,
    /// End with one line of JSON on standard output
    #[arg(long)]
    json: bool,
}

const FS_EXAMPLES: &str = "\
Examples:
  vmm bench fs --dir /tmp/tree --against virtiofsd
  vmm bench fs --dir /tmp/tree --against 'mine=my-server --socket {socket} --dir {file}' --json

A load generator plays Linux' driver over vhost-user for programs of a guest: `git status` looks at all files
from 20 threads and reads all directories, `git diff` also reads one file of 20, `tar c` reads all, and so on.
All contestants take turns. Answers are checked.";

/// Measure shared directories
#[derive(Debug, Args)]
#[command(after_help = FS_EXAMPLES)]
struct FsArgs {
    /// The folder that the back ends serve; made if it is not there
    #[arg(long)]
    dir: PathBuf,
    /// Small files in it, a multiple of 50
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(50..=1_000_000))]
    files: u32,
    /// Bytes of its large file, a multiple of 1M
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    size: ByteCount,
    /// Files that are made and removed
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    new: u32,
    /// Random requests of 4 KiB
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(16..=10_000_000))]
    random: u32,
    /// Programs to measure, several with commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "status,diff,tar,create,sequential,random"
    )]
    only: Vec<ProgramKind>,
    /// Where driver and back end run
    #[arg(long, value_enum, default_value_t = PlacementChoice::Apart)]
    place: PlacementChoice,
    /// What the driver does while it waits
    #[arg(long, value_enum, default_value_t = PollingChoice::Off)]
    polling: PollingChoice,
    /// Rounds in which all take turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// A back end to compare with: a known one, or NAME=COMMAND with {socket} and {file} in it
    #[arg(long, value_name = "PEER")]
    against: Vec<Contestant>,
    /// End with one line of JSON on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Way {
    Send,
    Receive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Traffic {
    /// Frames that nobody but the tap looks at
    Frames,
    /// TCP, in large segments
    Streams,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Rw {
    Randread,
    Randwrite,
    /// 70 % reads
    Randrw,
    Read,
    Write,
    /// As many random reads as writes; what was written has to come back
    Verify,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PollingChoice {
    /// Sleeps until there is an interrupt
    Off,
    /// Looks for 200 us, then sleeps
    Adaptive,
    /// Never sleeps
    Always,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PlacementChoice {
    /// Each thread of the driver with a processor, back ends on the others
    Apart,
    /// All on one processor
    Together,
    /// Wherever the scheduler has them
    Anywhere,
}

/// Measures, and gives the exit status of the process.
pub(super) fn run(arguments: BenchArgs) -> u8 {
    match arguments.kind {
        Kind::Blk(arguments) => {
            let (json, report) = (arguments.json, arguments.report.clone());
            let bench = match plan(arguments) {
                Ok(bench) => bench,
                Err(text) => {
                    eprintln!("error: {text}");
                    return outcome::BAD_INPUT;
                }
            };
            finish(
                json,
                with_progress(|progress| bench::run_blk(&bench, progress)).and_then(|results| {
                    if let Some(path) = &report {
                        std::fs::write(path, bench::html(&results))
                            .map_err(|source| BenchError::File { path: path.clone(), source })?;
                    }
                    Ok((results.table(), results.json()))
                }),
            )
        }
        Kind::Net(arguments) => {
            let json = arguments.json;
            let bench = plan_net(arguments);
            let results = with_progress(|progress| bench::run_net(&bench, progress));
            finish(json, results.map(|results| (results.table(), results.json())))
        }
        Kind::Ipc(arguments) => try_out(&arguments, bench::run_ipc),
        Kind::Executor(arguments) => try_out(&arguments, bench::run_executor),
        Kind::Exits(arguments) => try_out(&arguments, bench::run_exits),
        Kind::Boot(BootArgs { kernels, against, rounds, json }) => {
            try_out(&TrialArgs { rounds, json }, |rounds, progress| {
                bench::run_boot(&kernels, &against, rounds, progress)
            })
        }
        Kind::Fs(arguments) => {
            let json = arguments.json;
            let large = arguments.size.get();
            if !arguments.files.is_multiple_of(50) || !large.is_multiple_of(1 << 20) || large == 0 {
                eprintln!("error: files come in steps of 50, and the large one has mebibytes");
                return outcome::BAD_INPUT;
            }
            let bench = plan_fs(arguments);
            let results = with_progress(|progress| bench::run_fs(&bench, progress));
            finish(json, results.map(|results| (results.table(), results.json())))
        }
    }
}

fn try_out(
    arguments: &TrialArgs,
    measure: impl FnOnce(u32, &dyn Fn(&str)) -> Result<TrialResults, BenchError>,
) -> u8 {
    let results = with_progress(|progress| measure(arguments.rounds, progress));
    finish(arguments.json, results.map(|results| (results.table(), results.json())))
}

/// Says on a terminal what is going on.
fn with_progress<T>(measure: impl FnOnce(&dyn Fn(&str)) -> T) -> T {
    let terminal = std::io::stderr().is_terminal();
    let results = measure(&|what| {
        if terminal {
            eprint!("\r\x1b[K{what}");
        } else {
            log::info!("{what}");
        }
    });
    if terminal {
        eprint!("\r\x1b[K");
    }
    results
}

/// Shows a table, or a line of JSON with the table beside it, or what went wrong.
fn finish(json: bool, results: Result<(String, String), BenchError>) -> u8 {
    match results {
        Ok((table, line)) => {
            let (text, beside) = if json { (line + "\n", table) } else { (table, String::new()) };
            // A reader that has gone wants no more.
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
            eprint!("{beside}");
            0
        }
        Err(error) => {
            let report = Report::new(&error);
            eprintln!("{report}");
            report.exit_code()
        }
    }
}

fn plan_fs(arguments: FsArgs) -> FsBench {
    let large = arguments.size.get();
    FsBench {
        tree: FsTree { path: arguments.dir, files: arguments.files, large },
        amounts: FsAmounts {
            new: arguments.new,
            random: arguments.random,
            polling: arguments.polling.into(),
            placement: arguments.place.into(),
        },
        kinds: arguments.only,
        rounds: arguments.rounds,
        against: arguments.against,
    }
}

fn plan_net(arguments: NetArgs) -> NetBench {
    let way = |way: &Way| match way {
        Way::Send => Direction::Send,
        Way::Receive => Direction::Receive,
    };
    let wants = |traffic| arguments.traffic.contains(&traffic);
    NetBench {
        ways: arguments.way.iter().map(way).collect(),
        lengths: if wants(Traffic::Frames) { arguments.bytes.clone() } else { Vec::new() },
        streams: wants(Traffic::Streams).then_some(Stream {
            direction: Direction::Send,
            frames: FrameSize::Large,
            polling: arguments.runs.polling.into(),
            warm_up: Duration::from_secs_f64(arguments.runs.warm_up),
            duration: Duration::from_secs_f64(arguments.runs.seconds),
        }),
        rounds: arguments.runs.rounds,
        against: arguments.against,
        frames: Frames {
            direction: Direction::Send,
            bytes: 64,
            depth: arguments.depth,
            polling: arguments.runs.polling.into(),
            warm_up: Duration::from_secs_f64(arguments.runs.warm_up),
            duration: Duration::from_secs_f64(arguments.runs.seconds),
        },
    }
}

impl From<PlacementChoice> for Placement {
    fn from(choice: PlacementChoice) -> Self {
        match choice {
            PlacementChoice::Apart => Self::Apart,
            PlacementChoice::Together => Self::Together,
            PlacementChoice::Anywhere => Self::Anywhere,
        }
    }
}

impl From<PollingChoice> for Polling {
    fn from(choice: PollingChoice) -> Self {
        match choice {
            PollingChoice::Off => Self::Off,
            PollingChoice::Adaptive => Self::Adaptive,
            PollingChoice::Always => Self::Always,
        }
    }
}

fn plan(arguments: BlkArgs) -> Result<BlkBench, String> {
    let check = match arguments.rw {
        Rw::Verify => Check::Contents,
        _ => Check::Nothing,
    };
    let (access, order) = match arguments.rw {
        Rw::Randread => (Access::Read, Order::Random),
        Rw::Randwrite => (Access::Write, Order::Random),
        Rw::Randrw => (Access::Mixed { reads: 70 }, Order::Random),
        Rw::Verify => (Access::Mixed { reads: 50 }, Order::Random),
        Rw::Read => (Access::Read, Order::Sequential),
        Rw::Write => (Access::Write, Order::Sequential),
    };
    let block_size = u32::try_from(arguments.bs.get())
        .ok()
        .filter(|size| size.is_multiple_of(512) && (512..=1 << 20).contains(size))
        .ok_or("a request has 512 bytes to 1M, in steps of 512")?;
    if access != Access::Read && arguments.devices > 1 {
        return Err("several devices can only read: all serve the same file".into());
    }
    let peers = arguments.against.into_iter().map(DiskPeers::contestants);
    let peers = peers.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let threads = arguments.threads.unwrap_or_else(threads_beside_a_device);
    let threads = threads.clamp(1, arguments.queues);
    let drivers = usize::from(arguments.devices) * usize::from(threads);
    let placement =
        arguments.place.map_or_else(|| Placement::for_drivers(drivers), Placement::from);
    Ok(BlkBench {
        file: arguments.file,
        create: arguments.create.map(ByteCount::get),
        overwrite: arguments.overwrite,
        workload: Workload {
            access,
            check,
            order,
            block_size,
            depth: 1,
            queues: arguments.queues,
            threads,
            polling: arguments.runs.polling.into(),
            warm_up: Duration::from_secs_f64(arguments.runs.warm_up),
            duration: Duration::from_secs_f64(arguments.runs.seconds),
        },
        depths: arguments.depth,
        devices: arguments.devices,
        placement,
        also: arguments.also,
        rounds: arguments.runs.rounds,
        against: peers.into_iter().flatten().collect(),
    })
}

/// Threads that look for answers on all processors at once would keep the device from its own.
fn threads_beside_a_device() -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(processors - 1).unwrap_or(u16::MAX).max(1)
}

/// What can stand behind the file and the number of queues.
fn disk_options(text: &str) -> Result<String, String> {
    let parsed = format!("path=x,queues=1,{text}").parse::<DiskConfig>();
    parsed.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is wanted")?;
    let sensible = (0.0..=3600.0).contains(&seconds);
    sensible.then_some(seconds).ok_or_else(|| "0 to 3600 seconds".into())
}
