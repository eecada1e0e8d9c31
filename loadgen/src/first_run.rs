//! From exec to the first guest instruction, of any VMM.
//!
//! A seccomp filter on the thread that starts the command stops the first `KVM_RUN` of whatever it
//! starts and tells this process, which reads the clock and ends the command. So any VMM can be
//! measured without its help, and what is measured runs at full speed: no system call but that one
//! is stopped.
//!
//! ```text
//!  thread of this process        child
//!  filter installed ── fork ──► clock_gettime ─ exec ─ ... ─ ioctl(KVM_RUN)
//!  listener ◄───────────────────────────────────────────────────┘ stopped here
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::{ClockId, clock_gettime};

use crate::LoadError;

/// `_IO(KVMIO, 0x80)`.
const KVM_RUN: u32 = 0xAE80;
/// A start that takes longer has failed.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// Between two starts: the kernel frees a killed VM's memory on threads of its own.
const REST: Duration = Duration::from_millis(50);
/// Memory that is touched and freed before a start. A machine that is a VM itself may have given
/// its free pages back to its host, and would measure how fast that one returns them.
const WARM_BYTES: usize = 128 << 20;

/// `struct seccomp_data`: the offsets of the system call's number and of the low half of its second
/// argument.
const DATA_NUMBER: u32 = 0;
const DATA_SECOND_ARGUMENT: u32 = 16 + 8;

/// Runs a command up to its first `KVM_RUN`, then ends it.
///
/// On a thread of its own: a filter cannot be removed.
pub fn first_run(command: &[OsString]) -> Result<Duration, LoadError> {
    let measured = std::thread::scope(|scope| scope.spawn(|| measure(command)).join());
    measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn measure(command: &[OsString]) -> Result<Duration, LoadError> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(LoadError::NoRun("there is no command".into()));
    };
    std::thread::sleep(REST);
    for pages in [rustix::mm::Advice::LinuxNoHugepage, rustix::mm::Advice::LinuxHugepage] {
        warm(pages).map_err(LoadError::system("touch memory"))?;
    }
    let listener = stop_at_kvm_run().map_err(LoadError::system("install a seccomp filter"))?;
    let (clock, clock_writer) =
        rustix::pipe::pipe().map_err(|errno| LoadError::system("make a pipe")(errno.into()))?;
    let mut start = Command::new(program);
    start.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: the closure runs in a fork: it reads the clock and writes 8 bytes, nothing else.
    unsafe {
        start.pre_exec(move || {
            rustix::io::write(&clock_writer, &nanoseconds().to_ne_bytes())?;
            Ok(())
        });
    }
    let mut child = Reaped(start.spawn().map_err(LoadError::system("start the command"))?);
    drop(start);
    let ended = i32::try_from(child.0.id())
        .ok()
        .and_then(Pid::from_raw)
        .map_or(Err(Errno::SRCH), |pid| pidfd_open(pid, PidfdFlags::empty()))
        .map_err(|errno| LoadError::system("watch the command")(errno.into()))?;
    let mut ready = [PollFd::new(&listener, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
    rustix::event::poll(&mut ready, Some(&PATIENCE))
        .map_err(|errno| LoadError::system("wait for KVM_RUN")(errno.into()))?;
    let end = nanoseconds();
    if !ready[0].revents().contains(PollFlags::IN) {
        let how = match child.0.try_wait().map_err(LoadError::system("look after the command"))? {
            Some(status) => format!("it ended with {status}"),
            None => format!("not within {} s", PATIENCE.tv_sec),
        };
        return Err(LoadError::NoRun(how));
    }
    let mut begin = [0; 8];
    File::from(clock).read_exact(&mut begin).map_err(LoadError::system("read the clock"))?;
    Ok(Duration::from_nanos(end.saturating_sub(u64::from_ne_bytes(begin))))
}

/// Makes free memory, of small or of huge pages, free memory that this machine really has.
fn warm(pages: rustix::mm::Advice) -> io::Result<()> {
    use rustix::mm::{MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping, written within its length and unmapped by the only one who knows it.
    unsafe {
        let memory = mmap_anonymous(std::ptr::null_mut(), WARM_BYTES, access, MapFlags::PRIVATE)?;
        // A host without huge pages does without.
        let _ = madvise(memory, WARM_BYTES, pages);
        memory.cast::<u8>().write_bytes(1, WARM_BYTES);
        Ok(munmap(memory, WARM_BYTES)?)
    }
}

/// Ends a child however its measurement ends.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // One that has ended needs no end.
        let _ = self.0.kill();
        let _ = self.0.wait();
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
