//! Disks: rounds of all contestants at each depth.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;

use loadgen::native::{self, Way};
use loadgen::virtio_blk::VirtioBlk;
use loadgen::{Access, Check, Figures, LoadError, Placement, Polling, Workload};

use super::contestant::{Contestant, Service, Sharing};
use super::error::BenchError;
use super::result::{BlkResult, BlkResults, Measured};
use crate::folder::Folder;

/// What is to be measured.
#[derive(Debug)]
pub struct BlkBench {
    /// The file that all serve.
    pub file: PathBuf,
    /// How large to make it, if it is not there.
    pub create: Option<u64>,
    /// Whether what is in it may be destroyed.
    pub overwrite: bool,
    /// All but the depth.
    pub workload: Workload,
    /// One after the other.
    pub depths: Vec<u16>,
    /// Back ends at the same time, each in a process of its own.
    pub devices: u16,
    /// Where the drivers and back ends run. Native requests are made wherever the scheduler has them.
    pub placement: Placement,
    /// Rounds at each depth.
    pub rounds: u32,
    /// Options of a disk that ours is measured with as well, each by itself.
    pub also: Vec<String>,
    /// Whom to hold ours against.
    pub against: Vec<Contestant>,
}

/// Measures; says with each run who is running.
pub fn run_blk(bench: &BlkBench, progress: &dyn Fn(&str)) -> Result<BlkResults, BenchError> {
    let file = prepare(bench, progress)?;
    let folder = Folder::create().map_err(BenchError::host("make a folder for sockets"))?;
    let sharing = if bench.devices > 1 { Sharing::Readers } else { Sharing::None };
    let ours = Contestant::ours(sharing, None)?;
    let also = bench.also.iter().map(|options| Contestant::ours(sharing, Some(options)));
    let also = also.collect::<Result<Vec<_>, _>>()?;
    let results = bench
        .depths
        .iter()
        .map(|depth| at_depth(bench, *depth, &file, (&ours, &also), &folder, progress))
        .collect::<Result<_, _>>()?;
    Ok(BlkResults { workload: describe(bench), results })
}

fn at_depth(
    bench: &BlkBench,
    depth: u16,
    file: &File,
    (ours, also): (&Contestant, &[Contestant]),
    folder: &Folder,
    progress: &dyn Fn(&str),
) -> Result<BlkResult, BenchError> {
    let workload = Workload { depth, ..bench.workload };
    let silent = Workload { polling: Polling::Off, ..workload };
    let (mut by_ring, mut by_calls) = (Vec::new(), Vec::new());
    let (mut polling, mut sleeping) = (Vec::new(), Vec::new());
    let mut others = vec![Vec::new(); also.len()];
    let mut peers = vec![Vec::new(); bench.against.len()];
    let failed = |name: &str, source| BenchError::Load { name: name.into(), source };
    for round in 1..=bench.rounds {
        let say = |who: &str| {
            progress(&format!("depth {depth}, round {round} of {}: {who}", bench.rounds));
        };
        say("io_uring");
        let native = Workload { queues: 1, ..workload };
        by_ring.push(native::run(file, &native, Way::Uring).map_err(|e| failed("io_uring", e))?);
        say("pread and pwrite");
        by_calls.push(native::run(file, &native, Way::Calls).map_err(|e| failed("pread", e))?);
        say(&ours.name);
        polling.push(serve(bench, ours, workload, folder)?);
        if workload.polling != Polling::Off {
            say("vmm without polling");
            sleeping.push(serve(bench, ours, silent, folder)?);
        }
        let others = also.iter().zip(&mut others);
        for (peer, rounds) in others.chain(bench.against.iter().zip(&mut peers)) {
            say(&peer.name);
            rounds.push(serve(bench, peer, workload, folder)?);
        }
    }
    let nothing = || BenchError::Host {
        doing: "measure without a round",
        source: std::io::ErrorKind::InvalidInput.into(),
    };
    let native = [("native io_uring", by_ring), ("native pread/pwrite", by_calls)]
        .into_iter()
        .filter_map(|(name, rounds)| Measured::of(name, rounds))
        .max_by(|a, b| a.rate().total_cmp(&b.rate()))
        .ok_or_else(nothing)?;
    let others = also.iter().zip(others);
    let peers = bench.against.iter().zip(peers);
    Ok(BlkResult {
        depth,
        ours: Measured::of(&ours.name, polling).ok_or_else(nothing)?,
        without_polling: Measured::of("vmm, driver sleeps", sleeping),
        others: others.filter_map(|(other, rounds)| Measured::of(&other.name, rounds)).collect(),
        peers: peers.filter_map(|(peer, rounds)| Measured::of(&peer.name, rounds)).collect(),
        native,
    })
}

/// One run against back ends that are started for it.
fn serve(
    bench: &BlkBench,
    contestant: &Contestant,
    workload: Workload,
    folder: &Folder,
) -> Result<Figures, BenchError> {
    let file = bench.file.canonicalize().map_err(|source| file_error(bench, source))?;
    let file = file.display().to_string();
    let mut services = Vec::new();
    let mut connections = Vec::new();
    for index in 0..bench.devices {
        let socket = folder.file(&format!("socket{index}"));
        let (service, connection) = contestant.start(&file, &socket, workload.queues)?;
        services.push(service);
        connections.push(connection);
    }
    let disks = connections.into_iter().map(|connection| VirtioBlk::new(connection, workload));
    let load = disks.collect::<Result<Vec<_>, _>>().and_then(|disks| {
        let processes = || services.iter().map(Service::process);
        let drivers = usize::from(bench.devices) * usize::from(workload.threads);
        let _placed = bench.placement.put(processes(), drivers)?;
        run_all(&disks, processes())
    });
    Service::judge(&mut services, contestant, load)
}

/// The load of all disks at the same time.
fn run_all(
    disks: &[VirtioBlk],
    processes: impl Iterator<Item = u32>,
) -> Result<Figures, LoadError> {
    thread::scope(|scope| {
        let loads: Vec<_> = disks
            .iter()
            .zip(processes)
            .map(|(disk, process)| scope.spawn(move || disk.run(process)))
            .collect();
        let ended = loads
            .into_iter()
            .map(|load| load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let each = ended.collect::<Result<Vec<_>, _>>()?;
        let sum = each.into_iter().reduce(|mut sum, figures| {
            sum.add(&figures);
            sum
        });
        sum.ok_or_else(|| LoadError::Unfit("is none".into()))
    })
}

/// Opens the file, makes it if that is wanted, and reads it once: into the page cache, as far as it fits.
fn prepare(bench: &BlkBench, progress: &dyn Fn(&str)) -> Result<File, BenchError> {
    let failed = |source| file_error(bench, source);
    let writes = bench.workload.access != Access::Read;
    if let (Some(size), false) = (bench.create, bench.file.exists()) {
        progress(&format!("making {}", bench.file.display()));
        fill(&bench.file, size).map_err(failed)?;
    } else if writes && !bench.overwrite {
        return Err(BenchError::WouldOverwrite(bench.file.clone()));
    }
    let mut file = File::options().read(true).write(writes).open(&bench.file).map_err(failed)?;
    progress(&format!("reading {}", bench.file.display()));
    std::io::copy(&mut file, &mut std::io::sink()).map_err(failed)?;
    Ok(file)
}

fn fill(path: &Path, size: u64) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    let random = File::open("/dev/urandom")?;
    std::io::copy(&mut std::io::Read::take(random, size), &mut file)?;
    file.flush()
}

fn file_error(bench: &BlkBench, source: std::io::Error) -> BenchError {
    BenchError::File { path: bench.file.clone(), source }
}

fn describe(bench: &BlkBench) -> String {
    let Workload { access, check, order, block_size, queues, duration, .. } = bench.workload;
    let access = match access {
        Access::Mixed { .. } if check == Check::Contents => {
            "reads of what was written, and writes".into()
        }
        Access::Read => "reads".to_owned(),
        Access::Write => "writes".to_owned(),
        Access::Mixed { reads } => format!("{reads} % reads"),
    };
    let order = format!("{order:?}").to_lowercase();
    format!(
        "{order} {access} of {block_size} bytes in {}, devices: {}, queues: {queues}; medians of {} rounds of {} s",
        bench.file.display(),
        bench.devices,
        bench.rounds,
        duration.as_secs_f64()
    )
}
