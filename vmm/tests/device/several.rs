//! Several devices of one command.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use devices::memory::GuestAddress;
use loadgen::virtio_blk::VirtioBlk;
use loadgen::virtio_fs::{FsAmounts, VirtioFs};
use loadgen::{Access, Check, Order, Placement, Polling, Workload};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::guest::{Guest, Place, READ, WRITE};
use crate::support::{Device, PATIENCE, connect};

const DISK_BYTES: usize = 4 << 20;
const BLOCK: usize = 4096;
/// Writes that are under way together.
const BATCH: usize = 5;

/// What a command says of who serves, and when it has ended all it has said.
pub(crate) struct Said {
    processes: Receiver<i32>,
    pub(crate) all: thread::JoinHandle<String>,
}

impl Said {
    pub(crate) fn listen(stderr: ChildStderr) -> Self {
        let (sender, processes) = mpsc::channel();
        let all = thread::spawn(move || {
            let mut all = String::new();
            for line in BufReader::new(stderr).lines() {
                let line = line.expect("text");
                let pid = line.split_once("served by process ").map(|(_, pid)| pid.parse());
                if let Some(pid) = pid {
                    // Nobody listens when the test has seen enough.
                    let _ = sender.send(pid.expect("a number"));
                }
                all.push_str(&line);
                all.push('\n');
            }
            all
        });
        Self { processes, all }
    }

    pub(crate) fn process(&self) -> i32 {
        self.processes.recv_timeout(PATIENCE).expect("a front end is served")
    }

    /// The process after another one.
    pub(crate) fn process_after(&self, dead: i32) -> i32 {
        loop {
            let pid = self.process();
            if pid != dead {
                return pid;
            }
        }
    }
}

/// Serves two new disks and a source of entropy.
fn serve(folder: &Path, options: &[&str]) -> (Device, Said) {
    for disk in ["a", "b"] {
        fs::write(folder.join(disk), vec![0; DISK_BYTES]).expect("writes");
    }
    serve_again(folder, options)
}

fn serve_again(folder: &Path, options: &[&str]) -> (Device, Said) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
    command.current_dir(folder).args(["device", "serve", "-v"]).args(options);
    command.args(["--device", "type=blk,socket=a.sock,path=a,queues=2"]);
    command.args(["--device", "type=blk,socket=b.sock,path=b,queues=2"]);
    command.args(["--device", "type=rng,socket=rng.sock"]);
    let mut device = Device(command.stderr(Stdio::piped()).spawn().expect("the binary starts"));
    let said = Said::listen(device.0.stderr.take().expect("a pipe"));
    (device, said)
}

/// Where a request is.
fn place(request: usize) -> Place {
    Place::of(request, BLOCK)
}

/// Makes a request for each block of a batch and waits for all of them.
fn transfer(guest: &mut Guest, kind: u32, first_block: usize) {
    for request in 0..BATCH {
        let sector = ((first_block + request) * BLOCK / 512) as u64;
        guest.add_request(0, kind, sector, place(request), BLOCK as u32);
    }
    guest.kick(0);
    for _ in 0..BATCH {
        guest.taken(0);
    }
    for request in 0..BATCH {
        let status = guest.status(place(request));
        assert_eq!(status, 0, "request {request} of {kind} at block {first_block}");
    }
}

/// What a block holds that was written for this time.
fn contents(turn: u64, block: usize) -> Vec<u8> {
    [turn.to_le_bytes(), (block as u64).to_le_bytes()].concat().repeat(BLOCK / 16)
}

/// Writes and reads back, until told to stop; counts.
fn use_disk(guest: &mut Guest, stop: &AtomicBool, done: &AtomicU64) {
    let batches = DISK_BYTES / BLOCK / BATCH;
    for turn in 0.. {
        let first_block = turn as usize % batches * BATCH;
        let data = |request| GuestAddress(place(request).data);
        for request in 0..BATCH {
            let block = contents(turn, first_block + request);
            guest.memory.write_slice(data(request), &block).expect("is in memory");
        }
        transfer(guest, WRITE, first_block);
        for request in 0..BATCH {
            guest.memory.write_slice(data(request), &[0; BLOCK]).expect("is in memory");
        }
        transfer(guest, READ, first_block);
        for request in 0..BATCH {
            let mut block = vec![0; BLOCK];
            guest.memory.read_slice(data(request), &mut block).expect("is in memory");
            assert!(block == contents(turn, first_block + request), "turn {turn} at {first_block}");
        }
        done.fetch_add(1, Ordering::Release);
        if stop.load(Ordering::Acquire) {
            return;
        }
    }
}

fn use_entropy(guest: &mut Guest, stop: &AtomicBool, done: &AtomicU64) {
    let mut last = Vec::new();
    while !stop.load(Ordering::Acquire) {
        guest.listen(0);
        let bytes = guest.heard(0);
        assert!(bytes.len() > 16 && bytes != last, "{bytes:?}");
        last = bytes;
        done.fetch_add(1, Ordering::Release);
    }
}

fn wait_for_more(counts: &[&AtomicU64]) {
    let before = counts.iter().map(|count| count.load(Ordering::Acquire)).collect::<Vec<_>>();
    let deadline = std::time::Instant::now() + PATIENCE;
    while counts.iter().zip(&before).any(|(count, before)| {
        // One was under way.
        count.load(Ordering::Acquire) < before + 2
    }) {
        assert!(std::time::Instant::now() < deadline, "a device is not served");
        thread::yield_now();
    }
}

/// A short load that compares what comes back with what was written.
pub(crate) fn verified_load(queues: u16) -> Workload {
    Workload {
        access: Access::Mixed { reads: 50 },
        check: Check::Contents,
        order: Order::Random,
        block_size: 4096,
        depth: 8,
        queues,
        threads: 2,
        polling: Polling::Adaptive,
        warm_up: Duration::from_millis(10),
        duration: Duration::from_millis(200),
    }
}

#[test]
fn two_disks_and_entropy_are_served_by_one_process_with_a_thread_for_each() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut device, said) = serve(folder.path(), &["--once"]);
    let workload = verified_load(2);
    let process = device.0.id();
    let socket = |name: &str| folder.path().join(name);
    let mut guest = Guest::new(&socket("rng.sock"), 0);
    let actor = said.process();
    thread::scope(|scope| {
        let disks = ["a.sock", "b.sock"].map(|name| {
            let connection = connect(&socket(name));
            scope.spawn(move || {
                let disk = VirtioBlk::new(connection, workload).expect("a driver");
                // A machine with much else to do may stand still for as long as a run takes.
                while disk.run(process).expect("no error, and what was written").operations == 0 {}
            })
        });
        guest.listen(0);
        assert!(!guest.heard(0).is_empty());
        for disk in disks {
            disk.join().expect("a disk");
        }
    });
    assert_eq!([said.process(), said.process()], [actor; 2]);
    let threads = fs::read_dir(format!("/proc/{actor}/task")).expect("a process").count();
    assert!(threads >= 3, "{threads} threads");
    drop(guest);
    assert!(device.0.wait().expect("ends").success());
    let all = said.all.join().expect("text");
    assert!(!all.contains("WARN") && !all.contains("ERROR"), "{all}");
    let left = fs::read_dir(&folder).expect("a folder").count();
    assert_eq!(left, 2, "the sockets are gone");
}

/// One that opens files has no Landlock, a umask and a working directory of its own, beside those that have none.
#[test]
fn devices_of_all_kinds_share_a_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for share in ["one", "two"] {
        fs::create_dir(path(share)).expect("makes");
        fs::write(path(share).join("file"), share).expect("writes");
    }
    fs::write(path("disk"), vec![0; DISK_BYTES]).expect("writes");
    fs::write(
        path("devices.toml"),
        r#"
        device = [
            { type = "fs", socket = "one.sock", path = "one", tag = "one" },
            { type = "blk", socket = "disk.sock", path = "disk" },
            { type = "console", socket = "hvc.sock", ports = ["file=log"] },
            { type = "fs", socket = "two.sock", path = "two", tag = "two" },
            { type = "vsock", socket = "vsock.sock", path = "host" },
        ]"#,
    )
    .expect("writes");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
    command.args(["device", "serve", "-v", "--once", "--config"]).arg(path("devices.toml"));
    let mut device = Device(command.stderr(Stdio::piped()).spawn().expect("the binary starts"));
    let said = Said::listen(device.0.stderr.take().expect("a pipe"));
    let amounts =
        FsAmounts { new: 0, random: 0, polling: Polling::Adaptive, placement: Placement::Anywhere };
    let shares = ["one.sock", "two.sock"]
        .map(|socket| VirtioFs::new(connect(&path(socket)), amounts).expect("a driver"));
    let mut console = Guest::new(&path("hvc.sock"), 0);
    let vsock = Guest::new(&path("vsock.sock"), 0);
    let mut disk = Guest::new(&path("disk.sock"), 0);
    for share in &shares {
        use_disk(&mut disk, &AtomicBool::new(true), &AtomicU64::new(0));
        let opened = share.open_many("file", 10).expect("answers");
        assert_eq!(opened.opened, 10);
        console.say(1, b"words ");
    }
    let served = [(); 5].map(|()| said.process());
    assert_eq!(served, [served[0]; 5]);
    drop((shares, console, vsock, disk));
    assert!(device.0.wait().expect("ends").success());
    assert_eq!(fs::read(path("log")).expect("reads"), b"words words ");
    let all = said.all.join().expect("text");
    assert!(!all.contains("WARN") && !all.contains("ERROR"), "{all}");
}

/// Where the threads of a process may run, by their names.
pub(crate) fn threads(process: i32) -> Vec<(String, String)> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("a process");
    let of = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).expect("reads");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.expect("the kernel tells it").trim().to_owned()
        };
        (field("Name:"), field("Cpus_allowed_list:"))
    };
    threads.map(|thread| of(thread.expect("a thread"))).collect()
}

/// Each device, and the successor of each.
#[test]
fn devices_of_one_process_run_where_they_are_put() {
    let folder = tempfile::tempdir().expect("a folder");
    let allowed = executor::allowed_processors().expect("the kernel says");
    let (first, last) = (allowed[0].to_string(), allowed[allowed.len() - 1].to_string());
    fs::write(folder.path().join("disk"), vec![0; DISK_BYTES]).expect("writes");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
    command.current_dir(folder.path()).args(["device", "serve", "-v"]);
    command.args(["--device", "type=console,socket=c.sock,ports=null"]);
    command.args(["--device", &format!("type=blk,socket=b.sock,path=disk,cpus={first}")]);
    command.args(["--device", &format!("type=rng,socket=r.sock,cpus=[{last}]")]);
    let mut device = Device(command.stderr(Stdio::piped()).spawn().expect("the binary starts"));
    let said = Said::listen(device.0.stderr.take().expect("a pipe"));
    let mut guest = Guest::new(&folder.path().join("b.sock"), 0);
    let mut process = said.process();
    for _ in 0..2 {
        use_disk(&mut guest, &AtomicBool::new(true), &AtomicU64::new(0));
        let threads = threads(process);
        let of = |name: &str| threads.iter().find(|thread| thread.0 == name).expect("a thread");
        assert_eq!((&of("blk").1, &of("rng").1), (&first, &last), "{threads:?}");
        kill_process(Pid::from_raw(process).expect("a number"), Signal::KILL).expect("lives");
        use_disk(&mut guest, &AtomicBool::new(true), &AtomicU64::new(0));
        process = said.process_after(process);
    }
}

#[test]
fn processors_that_cannot_be_had_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("disk"), vec![0; DISK_BYTES]).expect("writes");
    let refused = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
        command.current_dir(folder.path()).arg("device").args(arguments);
        let output = command.stdin(Stdio::null()).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(35), "{arguments:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    // No host that runs this has so many.
    let said = refused(&["blk", "--socket", "s", "path=disk,cpus=1022-1023"]);
    let begin = "error: the disk `disk` cannot run on CPUs 1022-1023\n  1: this host has the CPU";
    assert!(said.starts_with(begin), "{said}");
    assert!(said.ends_with("hint: `lscpu -e` lists those that there are\n"), "{said}");
    let (a, b) = ("type=rng,socket=a,cpus=1023", "type=rng,socket=b");
    let said = refused(&["serve", "--device", a, "--device", b]);
    let begin = "error: cannot serve the device at `a`\n  1: the device cannot run on CPU 1023\n";
    assert!(said.starts_with(begin), "{said}");
}

#[test]
fn apart_each_device_has_a_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut device, said) = serve(folder.path(), &["--once", "--apart"]);
    let guests = ["a.sock", "b.sock", "rng.sock"].map(|name| {
        let guest = Guest::new(&folder.path().join(name), 0);
        (guest, said.process())
    });
    let [a, b, c] = [0, 1, 2].map(|index: usize| guests[index].1);
    assert!(a != b && b != c && a != c, "{a} {b} {c}");
    drop(guests);
    assert!(device.0.wait().expect("ends").success());
}

#[test]
fn without_a_sandbox_each_device_has_a_thread() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut device, _said) = serve(folder.path(), &["--once", "--single-process"]);
    let (stop, done) = (AtomicBool::new(true), AtomicU64::new(0));
    let guest = |name: &str| Guest::new(&folder.path().join(name), 0);
    let (mut a, mut b, mut rng) = (guest("a.sock"), guest("b.sock"), guest("rng.sock"));
    use_disk(&mut a, &stop, &done);
    use_disk(&mut b, &stop, &done);
    rng.listen(0);
    assert!(!rng.heard(0).is_empty());
    drop((a, b, rng));
    assert!(device.0.wait().expect("ends").success());
}

/// Uses all devices while somebody ends those who serve them, so many times; no request fails and none is lost.
fn use_all(folder: &Path, kills: u32, mut kill: impl FnMut()) {
    let stop = AtomicBool::new(false);
    let counts = [const { AtomicU64::new(0) }; 3];
    let [a, b, rng] = &counts;
    thread::scope(|scope| {
        type Use = fn(&mut Guest, &AtomicBool, &AtomicU64);
        let uses: [(&str, Use, _); 3] =
            [("a.sock", use_disk, a), ("b.sock", use_disk, b), ("rng.sock", use_entropy, rng)];
        let guests = uses.map(|(name, keep_using, done)| {
            let (socket, stop) = (folder.join(name), &stop);
            scope.spawn(move || {
                let mut guest = Guest::new(&socket, 0);
                keep_using(&mut guest, stop, done);
                guest.reconnected
            })
        });
        for _ in 0..kills {
            wait_for_more(&[a, b, rng]);
            kill();
        }
        wait_for_more(&[a, b, rng]);
        stop.store(true, Ordering::Release);
        for guest in guests {
            let reconnected = guest.join().expect("no error");
            assert!(reconnected >= kills, "{reconnected}");
        }
    });
}

#[test]
fn kills_of_the_process_under_load_are_noticed_by_no_device() {
    let folder = tempfile::tempdir().expect("a folder");
    let (device, said) = serve(folder.path(), &[]);
    let mut process = None;
    use_all(folder.path(), 5, || {
        let dies = process.unwrap_or_else(|| said.process());
        kill_process(Pid::from_raw(dies).expect("a number"), Signal::KILL).expect("lives");
        process = Some(said.process_after(dies));
    });
    drop(device);
    let all = said.all.join().expect("text");
    assert!(all.contains("disk a at a.sock: process"), "{all}");
    assert!(all.contains("ended: killed by SIGKILL"), "{all}");
}

/// Its sockets and the locks on its disks outlive it for a moment.
#[test]
fn kills_of_the_command_under_load_are_noticed_by_no_device() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut device, mut said) = serve(folder.path(), &[]);
    use_all(folder.path(), 3, || {
        let actor = Pid::from_raw(said.process()).expect("a number");
        let actor = pidfd_open(actor, PidfdFlags::empty()).expect("lives");
        device.0.kill().expect("lives");
        device.0.wait().expect("ends");
        (device, said) = serve_again(folder.path(), &[]);
        // It ends with the command, a moment later.
        let patience = PATIENCE.try_into().expect("a time");
        let mut ended = [PollFd::new(&actor, PollFlags::IN)];
        assert_eq!(poll(&mut ended, Some(&patience)), Ok(1));
    });
}

#[test]
fn errors_say_which_device_they_are_about() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a"), vec![0; DISK_BYTES]).expect("writes");
    let refused = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
        command.current_dir(folder.path()).args(["device", "serve"]).args(arguments);
        let output = command.stdin(Stdio::null()).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(35), "{arguments:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    let disk = "type=blk,socket=a.sock,path=a";
    let missing = "type=blk,socket=b.sock,path=b";
    let said = refused(&["--device", disk, "--device", missing]);
    assert!(said.starts_with("error: cannot serve the device at `b.sock`\n  1: "), "{said}");
    let said = refused(&["--device", missing]);
    assert!(said.starts_with("error: cannot use the disk `b`\n"), "{said}");
    let said = refused(&["--device", disk, "--device", disk]);
    assert!(said.starts_with("error: two devices are to be served at the socket `a.sock`\n"));
    let said = refused(&["--device", disk, "--device", "type=blk,socket=b.sock,path=a"]);
    assert!(said.starts_with("error: cannot serve the device at `b.sock`\n"), "{said}");
    assert!(said.contains("disk a is locked by process"), "{said}");
    assert!(refused(&[]).starts_with("error: no device to serve is given\n"));
    let left = fs::read_dir(&folder).expect("a folder").count();
    assert_eq!(left, 1, "no socket is left");
}
