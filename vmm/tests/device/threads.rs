//! Disks with several threads.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use devices::memory::GuestAddress;
use loadgen::virtio_blk::VirtioBlk;
use rustix::process::{Pid, Signal, kill_process};

use crate::guest::{Guest, Place, READ, WRITE};
use crate::several::{Said, threads, verified_load};
use crate::support::{Device, connect};

const DISK_BYTES: usize = 8 << 20;
const BLOCK: usize = 4096;
const QUEUES: usize = 4;
/// Requests that are under way on each queue.
const BATCH: usize = 5;

fn serve(folder: &Path, options: &str, more: &[&str]) -> (Device, Said) {
    fs::write(folder.join("disk"), vec![0; DISK_BYTES]).expect("writes");
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
    command.current_dir(folder).args(["device", "blk", "-v", "--socket", "socket"]).args(more);
    command.arg(format!("path=disk,{options}")).stderr(Stdio::piped());
    let mut device = Device(command.spawn().expect("the binary starts"));
    let said = Said::listen(device.0.stderr.take().expect("a pipe"));
    (device, said)
}

#[test]
fn queues_on_several_threads_keep_what_is_written() {
    let workload = verified_load(QUEUES as u16);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let allowed = executor::allowed_processors().expect("the kernel says");
    let two = [allowed[0], allowed[allowed.len() - 1]].map(|number| number.to_string());
    // On a host with one they share it.
    let cpus = format!("threads=2,cpus=[{}]", two.join(","));
    for options in ["threads=3", "threads=3,direct", "threads=3,sqpoll", &cpus] {
        for more in [&["--once"][..], &["--once", "--single-process"]] {
            let (mut device, said) = serve(folder.path(), options, more);
            let connection = connect(&folder.path().join("socket"));
            let disk = VirtioBlk::new(connection, workload).expect("a driver");
            let process = device.0.id();
            disk.run(process).expect("all that was written comes back");
            let process = if more.len() == 1 { said.process() } else { process as i32 };
            let threads = threads(process);
            let of = |name: &str| threads.iter().find(|thread| thread.0 == name);
            let (_, place) = of("blk-1").expect("it has another thread");
            if options == cpus {
                assert_eq!(*place, two[1], "{threads:?}");
                let first = |thread: &&(String, String)| thread.0 != "blk-1" && thread.1 == two[0];
                assert!(threads.iter().any(|thread| first(&thread)), "{threads:?}");
            } else {
                assert!(of("blk-2").is_some(), "{threads:?}");
            }
            drop(disk);
            assert!(device.0.wait().expect("ends").success(), "{options} {more:?}");
            let all = said.all.join().expect("text");
            assert!(!all.contains("WARN") && !all.contains("ERROR"), "{all}");
        }
    }
}

/// Where a request of a queue is.
fn place(queue: usize, request: usize) -> Place {
    Place::of(queue * BATCH + request, BLOCK)
}

/// Makes a batch of requests available on each queue.
fn send(guest: &mut Guest, kind: u32, block: impl Fn(usize, usize) -> usize) {
    for queue in 0..QUEUES {
        for request in 0..BATCH {
            let sector = (block(queue, request) * BLOCK / 512) as u64;
            guest.add_request(queue, kind, sector, place(queue, request), BLOCK as u32);
        }
    }
    (0..QUEUES).for_each(|queue| guest.kick(queue));
}

fn receive(guest: &mut Guest) {
    for queue in 0..QUEUES {
        for _ in 0..BATCH {
            guest.taken(queue);
        }
        for request in 0..BATCH {
            let status = guest.status(place(queue, request));
            assert_eq!(status, 0, "request {request} of queue {queue}");
        }
    }
}

#[test]
fn a_successor_replays_what_all_threads_had_in_flight() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_device, said) = serve(folder.path(), "queues=4,threads=3", &[]);
    let mut guest = Guest::new(&folder.path().join("socket"), 0);
    let mut process = said.process();
    for turn in 0_u8..20 {
        let block = |queue, request| (queue * BATCH + request) + usize::from(turn % 3) * 100;
        let contents = |queue, request| [turn ^ block(queue, request) as u8; BLOCK];
        let all = || (0..QUEUES).flat_map(|queue| (0..BATCH).map(move |request| (queue, request)));
        for (queue, request) in all() {
            let data = GuestAddress(place(queue, request).data);
            guest.memory.write_slice(data, &contents(queue, request)).expect("is in memory");
        }
        send(&mut guest, WRITE, block);
        kill_process(Pid::from_raw(process).expect("a number"), Signal::KILL).expect("lives");
        receive(&mut guest);
        for (queue, request) in all() {
            let data = GuestAddress(place(queue, request).data);
            guest.memory.write_slice(data, &[0xee; BLOCK]).expect("is in memory");
        }
        send(&mut guest, READ, block);
        receive(&mut guest);
        for (queue, request) in all() {
            let mut read = vec![0; BLOCK];
            let data = GuestAddress(place(queue, request).data);
            guest.memory.read_slice(data, &mut read).expect("is in memory");
            assert!(read == contents(queue, request), "turn {turn}, {request} of {queue}");
        }
        process = said.process_after(process);
    }
    assert!(guest.reconnected >= 20, "{}", guest.reconnected);
}

#[test]
fn threads_without_queues_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("disk"), vec![0; DISK_BYTES]).expect("writes");
    let refused = |options: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
        command.current_dir(folder.path()).args(["device", "blk", "--socket", "s"]);
        let output = command.arg(options).stdin(Stdio::null()).output().expect("starts");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, said) = refused("path=disk,queues=2,threads=3");
    assert_eq!(code, Some(35), "{said}");
    assert_eq!(
        said,
        "error: the disk `disk` has 3 threads for its 2 queues\n\
         hint: each thread serves at least one queue: more `queues`, or fewer `threads`\n"
    );
    let (code, said) = refused("path=disk,threads=17");
    assert_eq!(code, Some(35), "{said}");
    assert!(said.contains("a disk has 1 to 16 threads"), "{said}");
}
