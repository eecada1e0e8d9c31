//! From exec to the first guest instruction.
//!
//! ```text
//! cargo run --release -p benches --bin start -- ROUNDS KERNEL... [-- OTHER-COMMAND...]
//! ```
//!
//! A seccomp filter on the thread that starts the command stops the first `KVM_RUN` of whatever it
//! starts and tells this program, which reads the clock and ends the command. So any VMM can be
//! measured without its help, and what is measured runs at full speed: no system call but that one
//! is stopped.
//!
//! ```text
//!  thread of this program        child
//!  filter installed ── fork ──► clock_gettime ─ exec ─ ... ─ ioctl(KVM_RUN)
//!  listener ◄───────────────────────────────────────────────────┘ stopped here
//! ```
//!
//! With another command after `--` (`{}` in it stands for the kernel) the two take turns.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::time::{ClockId, clock_gettime};

/// `_IO(KVMIO, 0x80)`.
const KVM_RUN: u32 = 0xAE80;
/// A start that takes longer has failed.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// Size of the disk, which is never read.
const DISK_BYTES: u64 = 64 << 20;
/// Between two starts: the kernel frees a killed VM's memory on threads of its own.
const REST: Duration = Duration::from_millis(50);
/// Memory that is touched and freed before a start. A machine that is a VM itself may have given
/// its free pages back to its host, and would measure how fast that one returns them.
const WARM_BYTES: usize = 128 << 20;

/// `struct seccomp_data`: the offsets of the system call's number and of the low half of its second
/// argument.
const DATA_NUMBER: u32 = 0;
const DATA_SECOND_ARGUMENT: u32 = 16 + 8;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let rounds = arguments.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(41);
    let kernels: Vec<PathBuf> =
        arguments.by_ref().take_while(|word| word != "--").map(PathBuf::from).collect();
    let other: Vec<OsString> = arguments.collect();
    assert!(!kernels.is_empty(), "usage: start ROUNDS KERNEL... [-- OTHER-COMMAND...]");

    let folder = benches::scratch();

    for kernel in &kernels {
        let mut ours = Vec::with_capacity(rounds);
        let mut theirs = Vec::with_capacity(rounds);
        for round in 0..=rounds {
            // A fresh one each time: the kernel lets go of a killed process's disk a little later.
            let disk = folder.path().join(format!("disk{round}"));
            File::create(&disk).and_then(|file| file.set_len(DISK_BYTES)).expect("makes a disk");
            let sample = measure(&vmm(kernel, &disk));
            let others = (!other.is_empty()).then(|| measure(&with_kernel(&other, kernel)));
            // The first brings files into the page cache.
            if round > 0 {
                ours.push(sample);
                theirs.extend(others);
            }
        }
        println!("{}", kernel.display());
        print("vmm", &mut ours);
        if !theirs.is_empty() {
            print(&other[0].to_string_lossy(), &mut theirs);
        }
    }
}

fn vmm(kernel: &Path, disk: &Path) -> Vec<OsString> {
    let program = benches::vmm();
    let mut disk_option = OsString::from("path=");
    disk_option.push(disk);
    [program.as_os_str(), "run".as_ref(), kernel.as_os_str(), "--memory".as_ref(), "512M".as_ref()]
        .into_iter()
        .map(OsString::from)
        .chain(["--disk".into(), disk_option])
        .collect()
}

fn with_kernel(command: &[OsString], kernel: &Path) -> Vec<OsString> {
    let place = |word: &OsString| if word == "{}" { kernel.into() } else { word.clone() };
    command.iter().map(place).collect()
}

fn print(name: &str, samples: &mut [Duration]) {
    samples.sort_unstable();
    let milliseconds = |sample: Duration| sample.as_secs_f64() * 1e3;
    println!(
        "  {name:<20} median {:7.2} ms  (min {:.2}, quartiles {:.2} and {:.2}, max {:.2})",
        milliseconds(samples[samples.len() / 2]),
        milliseconds(samples[0]),
        milliseconds(samples[samples.len() / 4]),
        milliseconds(samples[samples.len() * 3 / 4]),
        milliseconds(samples[samples.len() - 1]),
    );
}

/// Runs `command` up to its first `KVM_RUN`. On a thread of its own: a filter cannot be removed.
fn measure(command: &[OsString]) -> Duration {
    std::thread::scope(|scope| scope.spawn(|| measure_here(command)).join())
        .expect("the measuring thread ends")
}

fn measure_here(command: &[OsString]) -> Duration {
    std::thread::sleep(REST);
    warm(rustix::mm::Advice::LinuxNoHugepage);
    warm(rustix::mm::Advice::LinuxHugepage);
    let listener = stop_at_kvm_run().expect("installs a seccomp filter");
    let (clock, clock_writer) = rustix::pipe::pipe().expect("a pipe");
    let mut start = Command::new(&command[0]);
    start.args(&command[1..]).stdin(Stdio::null()).stdout(Stdio::null());
    // SAFETY: the closure runs in a fork: it reads the clock and writes 8 bytes, nothing else.
    unsafe {
        start.pre_exec(move || {
            rustix::io::write(&clock_writer, &nanoseconds().to_ne_bytes())?;
            Ok(())
        });
    }
    let mut child = Reaped(start.spawn().expect("starts the command"));
    drop(start);
    let mut ready = [PollFd::new(&listener, PollFlags::IN)];
    rustix::event::poll(&mut ready, Some(&PATIENCE)).expect("waits");
    let end = nanoseconds();
    assert!(
        ready[0].revents().contains(PollFlags::IN) && child.0.try_wait().expect("looks").is_none(),
        "{} did not get to its first KVM_RUN",
        command[0].display()
    );
    let mut begin = [0; 8];
    File::from(clock).read_exact(&mut begin).expect("the child's clock");
    Duration::from_nanos(end - u64::from_ne_bytes(begin))
}

/// Makes free memory, of small or of huge pages, free memory that this machine really has.
fn warm(pages: rustix::mm::Advice) {
    use rustix::mm::{MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping, written within its length and unmapped by the only one who knows it.
    unsafe {
        let memory = mmap_anonymous(std::ptr::null_mut(), WARM_BYTES, access, MapFlags::PRIVATE)
            .expect("memory to warm up");
        madvise(memory, WARM_BYTES, pages).expect("advises");
        memory.cast::<u8>().write_bytes(1, WARM_BYTES);
        munmap(memory, WARM_BYTES).expect("unmaps");
    }
}

/// Ends a child however its measurement ends.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        if let Err(error) = ended {
            let _ = writeln!(io::stderr(), "cannot end a child: {error}");
        }
    }
}

fn nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Makes the kernel hold `ioctl(_, KVM_RUN)` of this thread and of what it starts, and tell the
/// owner of the returned listener.
fn stop_at_kvm_run() -> io::Result<OwnedFd> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let unless_equal = |k: u32, jf: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let give = libc::BPF_RET | libc::BPF_K;
    let mut program = [
        statement(load, DATA_NUMBER),
        unless_equal(libc::SYS_ioctl as u32, 3),
        statement(load, DATA_SECOND_ARGUMENT),
        unless_equal(KVM_RUN, 1),
        statement(give, libc::SECCOMP_RET_USER_NOTIF),
        statement(give, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: the program is valid for the call, and the kernel checks and copies it.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    };
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as i32) })
}
