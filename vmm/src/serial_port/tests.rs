use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};

use executor::{Config, DriverChoice, Executor};
use rustix::fs::{Mode, OFlags};

use super::*;

/// A device with a FIFO that the test empties.
struct Device {
    fifo: Mutex<Vec<u8>>,
    room: usize,
    line: Weak<Line>,
}

impl Device {
    fn new(room: usize, line: &Arc<Line>) -> Arc<Self> {
        Arc::new(Self { fifo: Mutex::default(), room, line: Arc::downgrade(line) })
    }

    fn empty(&self) -> Vec<u8> {
        let taken = std::mem::take(&mut *self.fifo.lock().expect("not poisoned"));
        if let Some(line) = self.line.upgrade().filter(|_| !taken.is_empty()) {
            line.has_room();
        }
        taken
    }

    /// Empties it until so many bytes have come.
    async fn collect(&self, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.empty());
            executor::sleep(Duration::from_millis(1)).await;
        }
        all
    }
}

impl Receive for Device {
    fn receive(&self, bytes: &[u8]) -> usize {
        let mut fifo = self.fifo.lock().expect("not poisoned");
        let taken = bytes.len().min(self.room - fifo.len());
        fifo.extend_from_slice(&bytes[..taken]);
        assert!(fifo.len() <= self.room);
        taken
    }

    fn is_listening(&self) -> bool {
        true
    }
}

/// Opens a port and runs the test on an executor of each driver.
fn with_port(
    config: &SerialConfig,
    guest: Guest,
    test: impl AsyncFn(Connected, Arc<Line>, Arc<Device>),
) {
    for driver in [DriverChoice::Auto, DriverChoice::Epoll] {
        let port = SerialPort::open(config, guest).expect("opened");
        let line = port.line();
        let device = Device::new(16, &line);
        let mut executor =
            Executor::new(&Config { driver, ..Config::default() }).expect("an executor");
        executor.block_on(async {
            let receive: Arc<dyn Receive> = device.clone();
            let connected = port.connect(receive).expect("connected");
            test(connected, line, device).await;
        });
    }
}

/// Sends from another thread, as vCPUs do, byte by byte.
fn send_from_thread(line: &Arc<Line>, bytes: Vec<u8>) -> std::thread::JoinHandle<()> {
    let line = Arc::clone(line);
    std::thread::spawn(move || {
        for byte in bytes {
            line.send(&[byte]);
        }
    })
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|index| b' ' + (index % 90) as u8).collect()
}

#[test]
fn a_file_gets_every_byte_and_nothing_older() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("console");
    fs::write(&path, "older").expect("written");
    let config = SerialConfig::File(path.clone());
    // More than the line holds, so that the sender has to wait for the writer.
    let sent = text(200_000);
    with_port(&config, Guest::Kernel, async |connected, line, _| {
        let sender = send_from_thread(&line, sent.clone());
        while !sender.is_finished() {
            executor::sleep(Duration::from_millis(1)).await;
        }
        sender.join().expect("no panic");
        assert_eq!(connected.finish().await, None);
        assert!(fs::read(&path).expect("readable") == sent);
    });
}

#[test]
fn the_built_in_guests_summary_is_found_at_every_end() {
    with_port(&SerialConfig::Null, Guest::BuiltIn, async |connected, line, _| {
        line.send(b"builtin: 7 passed, 1 failed\r\n");
        let summary = BuiltInSummary { passed: 7, failed: 1 };
        assert_eq!(connected.finish().await, Some(summary));
    });
}

#[test]
fn a_reader_that_stalls_loses_bytes_and_the_guest_goes_on() {
    let line = Line::default();
    // Nobody reads at all.
    line.send(&text(100_000));
    assert_eq!(line.lost(), 100_000 - (64 << 10));
    line.send(b"more");
    assert_eq!(line.lost(), 100_004 - (64 << 10));
    // A reader that comes back gets what is there, and later bytes.
    assert_eq!(line.take(Vec::new()).map(|batch| batch.len()), Some(64 << 10));
    line.send(b"later");
    assert_eq!(line.take(Vec::new()), Some(b"later".to_vec()));
    line.close();
    assert_eq!(line.take(Vec::new()), None);
}

#[test]
fn the_readers_own_thread_does_not_wait_for_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("console");
    with_port(&SerialConfig::File(path.clone()), Guest::Kernel, async |connected, line, _| {
        // Were it to wait, nobody would empty the line, and the bytes would be lost.
        let sent = text((64 << 10) + 4096);
        line.send(&sent);
        connected.finish().await;
        assert!(fs::read(&path).expect("readable") == sent);
    });
}

#[test]
fn a_pty_carries_both_ways_and_echoes_nothing() {
    let port = SerialPort::open(&SerialConfig::Pty, Guest::Kernel).expect("opened");
    let HostEnd::Pty(pty) = &port.end else { panic!("a pty was asked for") };
    let path = pty.path().to_owned();
    let line = port.line();
    let device = Device::new(16, &line);
    let mut executor = Executor::new(&Config::default()).expect("an executor");
    executor.block_on(async {
        let connected = port.connect(device.clone()).expect("connected");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let user = rustix::fs::open(&path, flags, Mode::empty()).expect("opened");
        let user = Fd::new(user).expect("attached");
        line.send(b"login: ");
        let (result, buffer) = user.read(Vec::with_capacity(64)).await;
        assert_eq!((result.expect("read"), buffer.as_slice()), (7, b"login: ".as_slice()));
        let (result, _) = user.write(b"root\r".to_vec()).await;
        assert_eq!(result.expect("written"), 5);
        assert_eq!(device.collect(5).await, b"root\r");
        connected.finish().await;
    });
}

/// Runs a test on a pseudo-terminal of a console.
fn with_console_pty(
    absence: Absence,
    test: &impl AsyncFn(Connected, Arc<Line>, Arc<Device>, &str),
) {
    for driver in [DriverChoice::Auto, DriverChoice::Epoll] {
        let mut port = SerialPort::open(&SerialConfig::Pty, Guest::Kernel).expect("opened");
        port.absence = absence;
        let HostEnd::Pty(pty) = &port.end else { panic!("a pty was asked for") };
        let path = pty.path().to_owned();
        let line = port.line();
        let device = Device::new(16, &line);
        let mut executor =
            Executor::new(&Config { driver, ..Config::default() }).expect("an executor");
        executor.block_on(async {
            let connected = port.connect(device.clone()).expect("connected");
            test(connected, line, device, &path).await;
        });
    }
}

fn user_of(path: &str) -> Fd {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    Fd::new(rustix::fs::open(path, flags, Mode::empty()).expect("opened")).expect("attached")
}

/// Sends as a device's process does: when the line is empty.
async fn send_all(line: &Line, bytes: &[u8]) {
    for chunk in bytes.chunks(32 << 10) {
        line.emptied().await;
        line.send(chunk);
    }
    line.emptied().await;
}

async fn read_exactly(user: &Fd, count: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let (result, buffer) = user.read(Vec::with_capacity(count - all.len())).await;
        assert!(result.expect("read") > 0, "the terminal is open");
        all.extend(buffer);
    }
    all
}

#[test]
fn a_console_on_a_pty_waits_for_a_slow_user_and_for_no_absent_one() {
    with_console_pty(Absence::Drops, &async |connected, line, device, path| {
        // Far more than a terminal keeps: it goes on without anybody.
        send_all(&line, &text(400_000)).await;
        let user = user_of(path);
        let sender = Arc::clone(&line);
        let sent = text(300_000);
        let expected = sent.clone();
        let sender =
            executor::spawn(async move { send_all(&sender, &[b"\0", &*sent].concat()).await });
        // The first user gets what the terminal kept, and then all.
        while read_exactly(&user, 1).await != [0] {}
        assert!(read_exactly(&user, expected.len()).await == expected);
        sender.await;
        assert_eq!(line.lost(), 0);
        user.write(b"ok".to_vec()).await.0.expect("written");
        assert_eq!(device.collect(2).await, b"ok");
        // Another one comes after the first has left.
        drop(user);
        send_all(&line, &text(400_000)).await;
        let user = user_of(path);
        user.write(b"again".to_vec()).await.0.expect("written");
        assert_eq!(device.collect(5).await, b"again");
        connected.finish().await;
    });
}

#[test]
fn a_named_port_on_a_pty_waits_for_a_user_and_loses_nothing() {
    with_console_pty(Absence::Waits, &async |connected, line, device, path| {
        let sender = Arc::clone(&line);
        let sender = executor::spawn(async move { send_all(&sender, &text(300_000)).await });
        executor::sleep(Duration::from_millis(30)).await;
        let user = user_of(path);
        assert!(read_exactly(&user, 300_000).await == text(300_000));
        sender.await;
        user.write(b"ok".to_vec()).await.0.expect("written");
        assert_eq!(device.collect(2).await, b"ok");
        connected.finish().await;
    });
}

/// Its reader is on the same thread: were that held up, nothing would be read.
#[test]
fn a_file_that_is_a_terminal_holds_nobody_up() {
    let pty = pty::open().expect("opened");
    let config = SerialConfig::File(pty.path().into());
    with_port(&config, Guest::Kernel, async |connected, line, _| {
        let controller = pty.controller.try_clone().expect("a copy");
        let reader = Fd::new(controller).expect("attached");
        let sender = Arc::clone(&line);
        let sender = executor::spawn(async move { send_all(&sender, &text(300_000)).await });
        assert!(read_exactly(&reader, 300_000).await == text(300_000));
        sender.await;
        connected.finish().await;
    });
}

/// A client that blocks, on a thread of its own.
fn client(path: &Path, sends: Vec<u8>, wants: usize) -> std::thread::JoinHandle<Vec<u8>> {
    let mut stream = UnixStream::connect(path).expect("connected");
    std::thread::spawn(move || {
        stream.write_all(&sends).expect("sent");
        let mut received = vec![0; wants];
        stream.read_exact(&mut received).expect("received");
        received
    })
}

#[test]
fn a_socket_serves_one_client_after_the_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let config = SerialConfig::Unix(path.clone());
    with_port(&config, Guest::Kernel, async |connected, line, device| {
        // Input is longer than the device's FIFO: it waits for room and loses nothing.
        let typed = text(5000);
        for _ in 0..2 {
            let client = client(&path, typed.clone(), 3);
            assert!(device.collect(typed.len()).await == typed);
            line.send(b"abc");
            while !client.is_finished() {
                executor::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(client.join().expect("no panic"), b"abc");
        }
        connected.finish().await;
        assert!(!path.exists(), "the socket is left behind");
    });
}

#[test]
fn a_socket_that_is_in_use_is_refused_and_a_stale_one_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let config = SerialConfig::Unix(path.clone());
    let listener = UnixListener::bind(&path).expect("bound");
    let error = SerialPort::open(&config, Guest::Kernel).expect_err("in use");
    assert!(matches!(error, Error::Listen { .. }));
    assert!(path.exists());
    drop(listener);
    SerialPort::open(&config, Guest::Kernel).expect("nobody listens any more");
    fs::write(&path, "not a socket").expect("written");
    SerialPort::open(&config, Guest::Kernel).expect_err("a file is not replaced");
    assert_eq!(fs::read(&path).expect("still there"), b"not a socket");
}
