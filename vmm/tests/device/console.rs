//! Consoles, with those at the other end.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use devices::memory::{GuestAddress, GuestMemory, RegionSpec};
use devices::virtio::backend::RingLayout;
use devices::virtio::queue::RingFeatures;
use devices::virtio::queue::driver::{Buffer, DriverQueue};
use devices::virtio::vhost_user::front_end::{FrontEnd, SharedRegion};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::support::{Device, connect};

/// A back end that does nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(20);

const MEMORY: u64 = 1 << 20;
const RINGS_AT: u64 = 0x1000;
const QUEUE_SIZE: u16 = 16;
/// A page for each queue.
const BUFFERS_AT: u64 = 0x8_0000;
const BUFFER_BYTES: u32 = 256;

/// Multiport, and virtio 1 (virtio 1.3 sections 5.3.3 and 6).
const MULTIPORT: u64 = 1 << 1;
const VERSION_1: u64 = 1 << 32;

/// Where messages of the device come, and where those of the driver go.
const MESSAGES: usize = 2;
const ANSWERS: usize = 3;

fn start(folder: &Path, ports: &[String]) -> Device {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
    command.current_dir(folder).args(["device", "console", "--once", "--socket", "socket"]);
    Device(command.args(ports).stdin(Stdio::null()).spawn().expect("the binary starts"))
}

struct Queue {
    driver: DriverQueue,
    kick: OwnedFd,
    call: OwnedFd,
    buffer: u64,
}

/// A guest that uses all queues of a console.
struct Guest {
    front_end: FrontEnd,
    memory: GuestMemory,
    queues: Vec<Queue>,
}

impl Guest {
    fn new(socket: UnixStream, features: u64) -> Self {
        let mut front_end = FrontEnd::new(socket).expect("a back end");
        let offered = front_end.features().expect("features");
        assert_eq!(offered & MULTIPORT, features);
        let file = Arc::new(memfd_create("guest", MemfdFlags::CLOEXEC).expect("memory"));
        ftruncate(&*file, MEMORY).expect("memory");
        let region = SharedRegion { guest: 0, size: MEMORY, file: (*file).as_fd(), offset: 0 };
        front_end.set_features(features | VERSION_1).expect("features");
        front_end.set_memory(&[region]).expect("memory");
        let (base, length) = (GuestAddress(0), MEMORY);
        let region = RegionSpec { base, length, file: Arc::clone(&file), file_offset: 0 };
        let memory = GuestMemory::new(vec![region]).expect("memory");
        let mut queues = Vec::new();
        for index in 0..front_end.queue_count().expect("queues") {
            let ring = RINGS_AT + index * DriverQueue::ring_bytes(QUEUE_SIZE);
            let features = RingFeatures::from_bits(VERSION_1);
            let driver = DriverQueue::new(&memory, ring, QUEUE_SIZE, RingLayout::Split, features);
            let event = || eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
            let (kick, call) = (event(), event());
            let layout = driver.layout();
            let started =
                front_end.start_ring(index as u16, &layout, 0, kick.as_fd(), call.as_fd());
            started.expect("is served");
            queues.push(Queue { driver, kick, call, buffer: BUFFERS_AT + index * 4096 });
        }
        Self { front_end, memory, queues }
    }

    fn give(&mut self, queue: usize, buffer: Buffer) {
        let Queue { driver, kick, .. } = &mut self.queues[queue];
        driver.add(&[buffer]).expect("there is room");
        let _ = driver.publish();
        rustix::io::write(&*kick, &1_u64.to_ne_bytes()).expect("a kick");
    }

    /// Waits for a buffer to come back; gives the bytes that were written into it.
    fn taken(&mut self, queue: usize) -> u32 {
        let Queue { driver, call, .. } = &mut self.queues[queue];
        loop {
            if let Some(used) = driver.take_used() {
                return used.written;
            }
            let mut waiting = [PollFd::new(&*call, PollFlags::IN)];
            let patience = PATIENCE.try_into().expect("a time");
            assert_eq!(poll(&mut waiting, Some(&patience)).expect("waits"), 1, "no interrupt");
            rustix::io::read(&*call, &mut [0; 8]).expect("an interrupt");
        }
    }

    fn listen(&mut self, queue: usize) {
        let address = self.queues[queue].buffer;
        self.give(queue, Buffer::Writable { address, length: BUFFER_BYTES });
    }

    fn heard(&mut self, queue: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.taken(queue) as usize];
        let address = GuestAddress(self.queues[queue].buffer);
        self.memory.read_slice(address, &mut bytes).expect("is in memory");
        bytes
    }

    fn say(&mut self, queue: usize, bytes: &[u8]) {
        let address = self.queues[queue].buffer;
        self.memory.write_slice(GuestAddress(address), bytes).expect("is in memory");
        self.give(queue, Buffer::Readable { address, length: bytes.len() as u32 });
        self.taken(queue);
    }

    /// Says something of a port (virtio 1.3 section 5.3.6.2).
    fn tell(&mut self, port: u32, event: u16) {
        let message = [&port.to_le_bytes()[..], &event.to_le_bytes(), &1_u16.to_le_bytes()];
        self.say(ANSWERS, &message.concat());
    }

    /// What the next message says of which port, and what follows.
    fn told(&mut self) -> (u32, u16, Vec<u8>) {
        self.listen(MESSAGES);
        let message = self.heard(MESSAGES);
        let (port, rest) = message.split_first_chunk::<4>().expect("a message");
        let event = u16::from_le_bytes([rest[0], rest[1]]);
        (u32::from_le_bytes(*port), event, rest[4..].to_vec())
    }
}

/// All that there can be: the sandbox has room for their files.
#[test]
fn sixteen_ports_with_names_carry_bytes_both_ways() {
    const PORTS: usize = 16;
    let folder = tempfile::tempdir().expect("a folder");
    let ports: Vec<_> = (0..PORTS).map(|port| format!("unix=s{port},name=p{port}")).collect();
    let mut device = start(folder.path(), &ports);
    let mut guest = Guest::new(connect(&folder.path().join("socket")), MULTIPORT);
    assert_eq!(guest.front_end.config(8).expect("a space"), [0, 0, 0, 0, PORTS as u8, 0, 0, 0]);
    assert_eq!(guest.queues.len(), 2 * PORTS + 2);
    guest.tell(u32::MAX, 0);
    for port in 0..PORTS as u32 {
        assert_eq!(guest.told(), (port, 1, Vec::new()), "there is the port");
    }
    for port in 0..PORTS {
        let number = port as u32;
        guest.tell(number, 3);
        assert_eq!(guest.told(), (number, 7, format!("p{port}").into_bytes()), "its name");
        assert_eq!(guest.told(), (number, 6, Vec::new()), "it is open");
        guest.tell(number, 6);
    }
    for port in 0..PORTS {
        let receive = if port == 0 { 0 } else { 2 * port + 2 };
        let mut host = connect(&folder.path().join(format!("s{port}")));
        host.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let (here, there) = (format!("to {port}"), format!("from {port}"));
        host.write_all(here.as_bytes()).expect("is open");
        guest.listen(receive);
        assert_eq!(guest.heard(receive), here.as_bytes());
        guest.say(receive + 1, there.as_bytes());
        let mut came = vec![0; there.len()];
        host.read_exact(&mut came).expect("is open");
        assert_eq!(came, there.as_bytes());
    }
    drop(guest);
    assert!(device.0.wait().expect("ends").success());
    assert!(fs::read_dir(&folder).expect("a folder").next().is_none(), "its sockets are gone");
}

/// The last words of a guest are in the file when the command has ended.
#[test]
fn a_console_that_is_a_file_has_all_that_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut device = start(folder.path(), &["file=log".to_owned()]);
    let mut guest = Guest::new(connect(&folder.path().join("socket")), 0);
    assert_eq!(guest.queues.len(), 2);
    guest.say(1, b"one ");
    guest.say(1, b"two");
    drop(guest);
    assert!(device.0.wait().expect("ends").success());
    let file = File::open(folder.path().join("log")).expect("a file");
    assert_eq!(io::read_to_string(file).expect("text"), "one two");
}

#[test]
fn two_devices_behind_one_socket_and_ends_that_are_none_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |ports: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
        command.current_dir(folder.path()).args(["device", "console", "--socket", "socket"]);
        let output = command.args(ports).stdin(Stdio::null()).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(35), "{ports:?}");
        assert!(fs::read_dir(&folder).expect("a folder").next().is_none(), "{ports:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    assert_eq!(
        refused(&["null", "unix=b,name=b"]),
        "error: a console without a name and ports with names are two devices\n\
         hint: serve each from a `vmm device console` and a socket of its own\n"
    );
    assert!(refused(&["null", "pty"]).contains("one console without a name"));
    assert!(refused(&["unix=a,name=a", "unix=b,name=a"]).contains("are called `a`"));
    assert!(refused(&["unix=a,name=a", "unix=a,name=b"]).contains("end at `unix=a`"));
    assert!(refused(&[]).contains("required"));
}
