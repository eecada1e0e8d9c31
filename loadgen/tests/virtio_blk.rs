//! The generator against our own back end, in threads of one process.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use devices::virtio::blk::{BlockImage, DiskOptions};
use devices::virtio::parts::{DeviceParts, Parts};
use devices::virtio::queue::InflightRegion;
use devices::virtio::vhost_user::VhostUserStart;
use executor::{Config, Executor};
use loadgen::native::{self, Way};
use loadgen::virtio_blk::VirtioBlk;
use loadgen::{Access, Check, Figures, LoadError, Order, Polling, Workload};
use tempfile::{NamedTempFile, TempDir};

/// A file of 64 blocks.
fn file() -> NamedTempFile {
    let test = std::env::current_exe().unwrap();
    let mut file = NamedTempFile::new_in(test.parent().unwrap()).unwrap();
    file.write_all(&vec![7; 64 * 4096]).unwrap();
    file
}

/// Serves a disk to one front end.
fn serve(file: &Path, queues: u16, socket: &Path) -> JoinHandle<Result<(), String>> {
    let options = DiskOptions { queues, ..DiskOptions::new(file) };
    let device = DeviceParts::Blk(BlockImage::open(&options).unwrap());
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let (connection, _) = listener.accept().unwrap();
        let (queues, size) = device.profile().inflight_size();
        let inflight = InflightRegion::create(queues, size).unwrap();
        let start = VhostUserStart {
            device,
            inflight: inflight.file().try_clone_to_owned().unwrap().into(),
            connection: OwnedFd::from(connection).into(),
        };
        let mut executor = Executor::new(&Config::default()).unwrap();
        executor.block_on(start.run())
    })
}

fn workload(access: Access, order: Order, depth: u16, queues: u16, polling: Polling) -> Workload {
    Workload {
        access,
        check: Check::Nothing,
        order,
        block_size: 4096,
        depth,
        queues,
        threads: queues,
        polling,
        warm_up: Duration::from_millis(10),
        duration: Duration::from_millis(50),
    }
}

#[test]
fn all_workloads_run_and_are_counted() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("socket");
    let all = [
        workload(Access::Read, Order::Random, 1, 1, Polling::Off),
        workload(Access::Read, Order::Sequential, 32, 2, Polling::Adaptive),
        workload(Access::Write, Order::Random, 128, 1, Polling::Off),
        workload(Access::Mixed { reads: 50 }, Order::Random, 3, 2, Polling::Adaptive),
        Workload { threads: 2, ..workload(Access::Read, Order::Random, 4, 3, Polling::Off) },
        Workload {
            threads: 1,
            check: Check::Contents,
            ..workload(Access::Mixed { reads: 50 }, Order::Random, 24, 2, Polling::Adaptive)
        },
    ];
    for workload in all {
        let file = file();
        let thread = serve(file.path(), workload.queues, &socket);
        let disk = VirtioBlk::new(UnixStream::connect(&socket).unwrap(), workload).unwrap();
        let figures = counted(|| disk.run(std::process::id()));
        assert_eq!(figures.operations, figures.latency.len());
        drop(disk);
        thread.join().unwrap().unwrap();
        std::fs::remove_file(&socket).unwrap();
    }
}

/// What a run gave. A machine with much else to do may stand still for as long as one takes.
fn counted(mut run: impl FnMut() -> Result<Figures, LoadError>) -> Figures {
    loop {
        let figures = run().unwrap();
        if figures.operations > 0 {
            return figures;
        }
    }
}

#[test]
fn a_back_end_with_too_few_queues_is_refused() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("socket");
    let file = file();
    let thread = serve(file.path(), 1, &socket);
    let workload = workload(Access::Read, Order::Random, 1, 2, Polling::Off);
    assert!(matches!(
        VirtioBlk::new(UnixStream::connect(&socket).unwrap(), workload),
        Err(LoadError::Unfit(_))
    ));
    thread.join().unwrap().unwrap();
}

#[test]
fn both_ways_to_the_kernel_are_counted() {
    let file = file();
    let file = std::fs::File::options().read(true).write(true).open(file.path()).unwrap();
    for way in [Way::Uring, Way::Calls] {
        for access in [Access::Read, Access::Write] {
            let workload = workload(access, Order::Random, 4, 1, Polling::Off);
            let figures = counted(|| native::run(&file, &workload, way));
            assert_eq!(figures.operations, figures.latency.len());
        }
    }
}
