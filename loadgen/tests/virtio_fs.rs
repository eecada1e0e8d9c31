//! The programs against our own back end, in threads of one process.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use devices::virtio::fs::{FsOptions, FsParts};
use devices::virtio::parts::{DeviceParts, Parts};
use devices::virtio::queue::InflightRegion;
use devices::virtio::vhost_user::VhostUserStart;
use executor::{Config, Executor};
use loadgen::virtio_fs::{Direction, FsAmounts, FsProgram, FsTree, VirtioFs};
use loadgen::{Placement, Polling, SystemCalls};
use tempfile::TempDir;

#[test]
fn all_programs_run_and_are_counted() {
    let folder = TempDir::new().unwrap();
    let (socket, path) = (folder.path().join("socket"), folder.path().join("tree"));
    let tree = FsTree { path: path.clone(), files: 100, large: 2 << 20 };
    tree.prepare().unwrap();
    tree.prepare().unwrap();
    let other = FsTree { files: 50, ..tree.clone() };
    assert!(other.prepare().is_err(), "a folder of another shape is left alone");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        // SAFETY: the thread gets its own umask and working directory, nothing else changes.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.unwrap();
        let device = FsParts::open(&path, FsOptions::new("tag")).unwrap();
        let device = DeviceParts::Fs(device);
        let (connection, _) = listener.accept().unwrap();
        let (queues, size) = device.profile().inflight_size();
        let inflight = InflightRegion::create(queues, size).unwrap();
        let start = VhostUserStart {
            device,
            inflight: inflight.file().try_clone_to_owned().unwrap().into(),
            connection: OwnedFd::from(connection).into(),
        };
        Executor::new(&Config::default()).unwrap().block_on(start.run())
    });
    let programs = [
        (FsProgram::Status, 100),
        (FsProgram::Diff, 100),
        (FsProgram::Tar, 100),
        (FsProgram::Sequential(Direction::Read), 16),
        (FsProgram::Sequential(Direction::Write), 2),
        (FsProgram::Random(Direction::Read, 16), 64),
        (FsProgram::Random(Direction::Write, 1), 64),
        (FsProgram::Create, 70),
        (FsProgram::Remove, 70),
    ];
    let amounts =
        FsAmounts { new: 70, random: 64, polling: Polling::Off, placement: Placement::Anywhere };
    let driver = VirtioFs::new(UnixStream::connect(&socket).unwrap(), amounts).unwrap();
    let kinds = programs.map(|(program, _)| program);
    let figures = driver.run(&tree, &kinds, std::process::id(), SystemCalls::Counted).unwrap();
    for ((program, count), figures) in programs.iter().zip(figures) {
        assert_eq!((figures.operations, figures.latency.len()), (*count, *count), "{program:?}");
    }
    drop(driver);
    server.join().unwrap().unwrap();
}
