//! Frames each way through a tap: how many a second, against plain loops of `write` and `read` on a
//! tap of the same kind, how long a processor works for each, and how many system calls the device
//! thread makes. Rates need processors for guest, device and flood; the time of a processor for each frame
//! can be compared on a busy machine, too.
//!
//! ```text
//! cargo run --release -p benches --bin net [-- OPTION-OF-VMM-RUN...]
//!
//!   guest ── device thread ── tap ── network stack drops     send
//!   guest ── device thread ── tap ── packet socket floods    receive
//! ```
//!
//! Everything is in a network namespace of its own, so this needs the right to make one, and `ip`.
//! Rates are taken without `strace`, counts with it, by turns in one run.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType};

#[path = "../../../vmm/tests/net/frame.rs"]
#[allow(dead_code, reason = "frames are judged by the guest here")]
mod frame;

/// The interface of the machine.
const INTERFACE: &str = "t0";
/// The interface of the plain loops.
const PLAIN: &str = "p0";
/// How long each load lasts.
const LENGTH: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;
/// How often to look at the device's thread meanwhile.
const LOOK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(5);
/// The name of the thread that serves the network.
const DEVICE: &str = "net0";
/// Bytes before each frame on the plain tap, as its `vnet_hdr` has them by default.
const PLAIN_HEADER: usize = 10;
/// Different frames of a flood.
const FLOOD: u64 = 1024;

fn main() {
    benches::help("net [OPTION-OF-VMM-RUN...]");
    // SAFETY: there is one thread, which has opened nothing that depends on its namespace.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
        .expect("makes a network namespace");
    for bytes in [1514, 64] {
        for way in ["send", "receive"] {
            let (mut plain, mut machine) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                plain.push(if way == "send" { plain_writes(bytes) } else { plain_reads(bytes) });
                machine.push(rate(way, bytes));
            }
            let (plain, machine) = (median(&plain), median(&machine));
            let (frames, calls) = counts(way, bytes);
            println!(
                "{way} {bytes}: {} frames/s, plain loop {}, ratio {:.2}; {} ns of a processor each, \
                 plain loop {}; {calls} system calls for {frames} frames, {:.4} each",
                machine.rate,
                plain.rate,
                machine.rate as f64 / plain.rate as f64,
                machine.cost,
                plain.cost,
                calls as f64 / frames as f64
            );
        }
    }
}

/// What a load came to.
#[derive(Clone, Copy)]
struct Figures {
    /// Frames a second.
    rate: u64,
    /// Nanoseconds that a processor worked for each: in the plain loop's thread or in the device's.
    cost: u64,
}

fn median(figures: &[Figures]) -> Figures {
    let middle = |of: fn(&Figures) -> u64| {
        let mut all: Vec<u64> = figures.iter().map(of).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    Figures { rate: middle(|one| one.rate), cost: middle(|one| one.cost) }
}

/// Nanoseconds that a thread had a processor, from its folder in /proc.
fn worked(thread: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("{thread}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Frames that went through an interface, either way.
fn passed(interface: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").ok()?;
    let line =
        text.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))?;
    let words: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    Some(words.get(1)? + words.get(9)?)
}

/// A tap that is up.
fn plain_tap() -> File {
    let tap = File::options().read(true).write(true).open("/dev/net/tun").expect("opens a tap");
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(PLAIN.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as i16;
    // SAFETY: the request takes an `ifreq`, which lives until the call returns.
    let made = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
    let up = Command::new("ip").args(["link", "set", PLAIN, "up"]).status().expect("runs ip");
    assert!(up.success(), "the tap does not come up");
    tap
}

/// Frames a second by one `write` each.
fn plain_writes(bytes: usize) -> Figures {
    let mut tap = plain_tap();
    let frame = [&[0; PLAIN_HEADER][..], &frame::make(0, 0, bytes)].concat();
    repeat(|| {
        let written = tap.write(&frame).expect("writes");
        assert_eq!(written, frame.len());
    })
}

/// Frames a second by one `read` each, while the tap is flooded.
fn plain_reads(bytes: usize) -> Figures {
    let mut tap = plain_tap();
    flooded(PLAIN, bytes, || {
        let mut buffer = vec![0; 4096];
        repeat(|| {
            let _ = tap.read(&mut buffer).expect("reads");
        })
    })
}

/// Moves a frame as often as it can in this thread.
fn repeat(mut one: impl FnMut()) -> Figures {
    let begin = worked("/proc/thread-self").expect("schedstat");
    let (start, mut frames) = (Instant::now(), 0u64);
    while start.elapsed() < LENGTH {
        (0..64).for_each(|_| one());
        frames += 64;
    }
    let rate = (frames as f64 / start.elapsed().as_secs_f64()) as u64;
    let cost = (worked("/proc/thread-self").expect("schedstat") - begin) / frames;
    Figures { rate, cost }
}

/// Does `work` while a thread sends frames to the interface as fast as it can.
fn flooded<T>(interface: &str, bytes: usize, work: impl FnOnce() -> T) -> T {
    let socket = packet_socket(interface);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let frames: Vec<_> = (0..FLOOD).map(|number| frame::make(0, number, bytes)).collect();
            while !over.load(Ordering::Relaxed) {
                for frame in &frames {
                    // What the tap has no room for is lost.
                    let _ = rustix::net::send(&socket, frame, rustix::net::SendFlags::empty());
                }
            }
        });
        let result = work();
        over.store(true, Ordering::Relaxed);
        result
    })
}

/// A socket that sends whole frames to an interface and takes none.
fn packet_socket(interface: &str) -> OwnedFd {
    let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
    let socket = rustix::net::socket_with(AddressFamily::PACKET, kind, flags, None)
        .expect("a packet socket");
    let begin = Instant::now();
    let index = loop {
        match rustix::net::netdevice::name_to_index(&socket, interface) {
            Ok(index) => break index,
            Err(error) => assert!(begin.elapsed() < PATIENCE, "no {interface}: {error}"),
        }
        std::thread::yield_now();
    };
    // SAFETY: all zeroes is a valid `sockaddr_ll`, which has integers only.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index as i32;
    let length = size_of_val(&address) as u32;
    // SAFETY: a socket address of this length, which is copied.
    let address = unsafe { SocketAddrAny::read((&raw const address).cast(), length) };
    rustix::net::bind(&socket, &address).expect("binds");
    socket
}

fn start(way: &str, bytes: usize) -> Child {
    let words = format!("check=pci net={way} bytes={bytes} depth=128 seconds={}", LENGTH.as_secs());
    Command::new(benches::vmm())
        .args(["run", "--single-process", "--net", &format!("tap={INTERFACE}"), "-p", &words])
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts vmm")
}

/// Frames and frames a second, as the guest counts them.
fn finish(way: &str, vmm: &mut Child) -> (u64, u64) {
    let word = if way == "send" { "sent " } else { "received " };
    let figures = BufReader::new(vmm.stdout.take().expect("a pipe"))
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| {
            let (_, rest) = line.strip_prefix("net: ")?.split_once(word)?;
            let mut words = rest.split_whitespace();
            let frames = words.next()?.parse().ok()?;
            Some((frames, words.nth(1)?.parse().ok()?))
        })
        // To the end, so that vmm can write all it has to say.
        .last();
    let figures = figures.expect("the guest reports its load");
    vmm.wait().expect("vmm ends");
    figures
}

fn loaded(way: &str, bytes: usize, work: impl FnOnce() -> (u64, u64)) -> (u64, u64) {
    if way == "send" { work() } else { flooded(INTERFACE, bytes, work) }
}

fn rate(way: &str, bytes: usize) -> Figures {
    let mut vmm = start(way, bytes);
    let thread = format!("/proc/{0}/task/{1}", vmm.id(), device_thread(vmm.id()));
    let (mut cost, mut frames) = (0, 0);
    let (_, rate) = loaded(way, bytes, || {
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| watch(&thread));
            let figures = finish(way, &mut vmm);
            (cost, frames) = watch.join().expect("it ends");
            figures
        })
    });
    Figures { rate, cost: cost / frames.max(1) }
}

/// What a device thread worked and the frames that it moved, from the load's begin to where it was last
/// seen.
fn watch(thread: &str) -> (u64, u64) {
    let look = || Some((worked(thread)?, passed(INTERFACE)?));
    let mut first = None;
    let mut last = (0, 0);
    while let Some(seen) = look() {
        // Before the load there are a few.
        if first.is_none() && seen.1 > 1000 {
            first = Some(seen);
        }
        last = seen;
        std::thread::sleep(LOOK);
    }
    let first = first.unwrap_or(last);
    (last.0 - first.0, last.1 - first.1)
}

/// Frames, and the system calls of the device thread from before the first to the last.
fn counts(way: &str, bytes: usize) -> (u64, u64) {
    let folder = benches::scratch();
    let report = folder.path().join("strace");
    let mut vmm = start(way, bytes);
    let device = device_thread(vmm.id());
    let mut strace = Command::new("strace")
        .args(["-c", "-U", "calls,name", "-p", &device.to_string(), "-o"])
        .arg(&report)
        .stderr(Stdio::null())
        .spawn()
        .expect("starts strace");
    let (frames, _) = loaded(way, bytes, || finish(way, &mut vmm));
    strace.wait().expect("strace ends");
    let report = fs::read_to_string(&report).expect("strace reports");
    let total =
        report.lines().find_map(|line| line.trim().strip_suffix(" total")?.trim().parse().ok());
    (frames, total.expect("a total"))
}

fn device_thread(process: u32) -> u32 {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if name.trim() == DEVICE {
                let id = task.file_name();
                return id.to_str().and_then(|id| id.parse().ok()).expect("a number");
            }
        }
        std::thread::yield_now();
    }
    panic!("no thread called {DEVICE} appeared");
}
