//! Each device before a guest and a host that do what the input says.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::LocalKey;

use devices::memory::GuestAddress;
use devices::rate_limit::RateLimits;
use devices::virtio::balloon::{BalloonParts, Offer, PageSize};
use devices::virtio::blk::{Access, BlockImage, Caching, DiskOptions};
use devices::virtio::console::{ConsoleParts, PortEnd, PortRole, WindowSize};
use devices::virtio::fs::{FsOptions, FsParts};
use devices::virtio::net::{MacAddress, NetOptions, NetParts, Offloads, Tap};
use devices::virtio::pmem::{PmemFile, PmemParts};
use devices::virtio::rng::RngParts;
use devices::virtio::vsock::{ConnectRequest, Refused, SocketKind, VsockOptions, VsockParts};
use ipc::Receiver;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, send,
    socket_with, socketpair,
};
use tempfile::TempDir;

use crate::guest::{self, Outside};
use crate::limits;
use crate::script::Script;

const NOW: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);
/// Bytes of a disk.
const DISK_BYTES: u64 = 64 << 10;

thread_local! {
    /// Files of all inputs; what one leaves there the next one finds.
    static FOLDER: TempDir = TempDir::new().expect("a folder");
    /// The same in memory.
    static MEMORY: TempDir = tempfile::tempdir_in("/dev/shm").expect("a folder");
}

fn in_folder<T>(name: &str, make: impl FnOnce(&Path) -> T) -> T {
    FOLDER.with(|folder| make(&folder.path().join(name)))
}

fn file_in(folder: &'static LocalKey<TempDir>, name: &str, bytes: u64) -> PathBuf {
    let path = folder.with(|folder| folder.path().join(name));
    File::create(&path).and_then(|file| file.set_len(bytes)).expect("a file");
    path
}

pub(crate) fn blk(input: &[u8]) {
    let Some((&kind, input)) = input.split_first() else { return };
    let access = if kind & 1 == 1 { Access::ReadOnly } else { Access::ReadWrite };
    let caching = if kind & 2 == 2 { Caching::Direct } else { Caching::PageCache };
    let path = file_in(if kind & 4 == 4 { &MEMORY } else { &FOLDER }, "disk", DISK_BYTES);
    let open = |caching| {
        let new = DiskOptions::new(path.clone());
        BlockImage::open(&DiskOptions { access, caching, ..new })
    };
    // Not every file system can do without a page cache.
    let image = open(caching).or_else(|_| open(Caching::PageCache));
    let file = File::options().write(true).open(&path).expect("the file of the disk");
    guest::run(input, image.expect("a disk"), Owner(file));
}

/// Somebody who makes the file of a disk shorter or longer.
struct Owner(File);

impl Outside for Owner {
    fn happen(&mut self, script: &mut Script<'_>) {
        self.0.set_len(u64::from(script.byte()) * 512).expect("another length");
    }
}

/// Frames, and what is no frame, from a socket in the place of a tap.
struct Wire(OwnedFd);

impl Outside for Wire {
    fn happen(&mut self, script: &mut Script<'_>) {
        let count = usize::from(script.short() % 2048);
        // Nobody takes it, or there is no room: as on any wire.
        let _ = send(&self.0, script.bytes(count), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

pub(crate) fn net(input: &[u8]) {
    let pair = || {
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, NOW, None);
        pair.expect("a pair of sockets")
    };
    let ((own, peer), (second, _kept)) = (pair(), pair());
    // Half of the networks have two pairs of queues.
    let own =
        if input.first().is_some_and(|byte| byte & 2 == 2) { vec![own, second] } else { vec![own] };
    let tap = Tap::from_sockets(own, 1500, Offloads::all()).expect("a network");
    let options = NetOptions::new(MacAddress([2, 0, 0, 0, 0, 1]));
    guest::run(input, NetParts::new(tap, options).expect("a network"), Wire(peer));
}

/// Programs of the host that connect to the guest, write and leave.
struct Programs {
    name: SocketAddrUnix,
    connections: Vec<OwnedFd>,
    /// What the guest wants to be connected to.
    requests: Receiver<ConnectRequest>,
}

impl Outside for Programs {
    fn happen(&mut self, script: &mut Script<'_>) {
        let choice = script.byte();
        while let Ok(request) = self.requests.try_recv() {
            self.answer(request);
        }
        match choice % 4 {
            0 if self.connections.len() < 8 => {
                let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, NOW, None);
                let socket = socket.expect("a socket");
                if connect(&socket, &self.name).is_ok() {
                    self.connections.push(socket);
                    self.say(b"CONNECT 1024\n");
                }
            }
            1 => drop(self.connections.pop()),
            _ => {
                let count = usize::from(script.byte());
                self.say(script.bytes(count));
            }
        }
    }
}

impl Programs {
    /// Somebody listens on even ports.
    fn answer(&mut self, request: ConnectRequest) {
        let kind = match request.kind {
            SocketKind::Stream => SocketType::STREAM,
            SocketKind::Seqpacket => SocketType::SEQPACKET,
        };
        if !request.port.is_multiple_of(2) || self.connections.len() >= 8 {
            return request.reply.send(Err(Refused));
        }
        let pair = socketpair(AddressFamily::UNIX, kind, NOW, None);
        let (theirs, ours) = pair.expect("a pair of sockets");
        self.connections.push(ours);
        request.reply.send(Ok(theirs.into()));
    }

    fn say(&self, bytes: &[u8]) {
        if let Some(last) = self.connections.last() {
            let _ = send(last, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }
}

pub(crate) fn vsock(input: &[u8]) {
    let listener = |name: &str, kind| {
        in_folder(name, |path| {
            let _ = std::fs::remove_file(path);
            let address = SocketAddrUnix::new(path).expect("a short path");
            let socket = socket_with(AddressFamily::UNIX, kind, NOW, None).expect("a socket");
            bind(&socket, &address).and_then(|()| listen(&socket, 16)).expect("a listener");
            (socket, address)
        })
    };
    let (stream, name) = listener("vsock", SocketType::STREAM);
    let (messages, _) = listener("vsock.seqpacket", SocketType::SEQPACKET);
    let (connects, requests) = ipc::channel(16);
    let parts = VsockParts::new(VsockOptions::new(7), stream, messages, connects);
    let programs = Programs { name, connections: Vec::new(), requests };
    guest::run(input, parts.expect("a device"), programs);
}

/// Who reads and writes a console.
struct Terminal(Option<UnixStream>);

impl Outside for Terminal {
    fn happen(&mut self, script: &mut Script<'_>) {
        let Some(terminal) = &mut self.0 else { return };
        match script.byte() % 8 {
            0 => self.0 = None,
            1 => drop(terminal.shutdown(Shutdown::Write)),
            2 => drop(terminal.read(&mut [0; 3000])),
            _ => {
                let count = usize::from(script.byte());
                // Nobody reads: there may be no room.
                let _ = terminal.write(script.bytes(count));
            }
        }
    }
}

pub(crate) fn console(input: &[u8]) {
    let end = || {
        let (own, host) = UnixStream::pair().expect("a pair of sockets");
        own.set_nonblocking(true).and_then(|()| host.set_nonblocking(true)).expect("sockets");
        // Soon there is no room.
        rustix::net::sockopt::set_socket_send_buffer_size(&own, 4096).expect("a socket");
        (PortEnd::Both(OwnedFd::from(own).into()), host)
    };
    let ((first, host), (named, _kept)) = (end(), end());
    let ports = vec![(PortRole::Console, first), (PortRole::Named("p1".into()), named)];
    let console = ConsoleParts::new(ports, WindowSize::default()).expect("a console");
    guest::run(input, console, Terminal(Some(host)));
}

pub(crate) fn balloon(input: &[u8]) {
    let parts = BalloonParts {
        target_bytes: 64 << 10,
        reporting: Offer::Yes,
        deflate_on_oom: Offer::Yes,
        ..BalloonParts::new(PageSize::Small)
    };
    guest::run(input, parts, ());
}

pub(crate) fn rng(input: &[u8]) {
    guest::run(input, RngParts::new(RateLimits::NONE), ());
}

pub(crate) fn pmem(input: &[u8]) {
    let path = file_in(&FOLDER, "pmem", 2 << 20);
    let file = PmemFile::open(&path, Access::ReadWrite, None).expect("a file");
    let parts = PmemParts::new(&file, GuestAddress(1 << 32), file.length()).expect("memory");
    guest::run(input, parts, ());
}

/// A directory with a file, a folder and a link that leads out of it.
pub(crate) fn fs(input: &[u8]) {
    limits::keep_files_small();
    let folder = TempDir::new().expect("a folder");
    let (shared, outside) = (folder.path().join("shared"), folder.path().join("outside"));
    let make = || {
        std::fs::create_dir_all(shared.join("d"))?;
        std::fs::create_dir(&outside)?;
        std::fs::write(shared.join("a"), "text")?;
        std::os::unix::fs::symlink("../outside", shared.join("l"))
    };
    make().expect("files");
    let parts = FsParts::open(&shared, FsOptions::new("tag")).expect("a directory");
    guest::run(input, parts, ());
    let entries = std::fs::read_dir(&outside).expect("the folder outside is there");
    assert_eq!(entries.count(), 0, "the guest got out");
}
