//! How a dying actor says why: a page of memory that it shares with the warden.
//!
//! A process that is number 1 of its PID namespace ignores fatal signals from outside other than
//! SIGKILL unless it handles them, and an exit status has no room for an address or the number of
//! a forbidden system call. So an actor handles the signals that mean a fault, writes a note, and
//! ends itself.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

use super::SandboxError;

/// The exit status of an actor that left a note.
pub const NOTED_EXIT: libc::c_int = 128;
/// `SYS_SECCOMP` (asm-generic/siginfo.h): the `si_code` of a `SIGSYS` that a filter sent.
const SYS_SECCOMP: libc::c_int = 1;
/// Signals that mean that the actor cannot go on.
const FATAL: [libc::c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
];

/// What an actor wrote when it died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeathNote {
    /// The signal.
    pub signal: i32,
    /// For `SIGSYS`: the number of the system call that the seccomp policy forbids.
    pub system_call: Option<u32>,
    /// For faults: the address that was touched.
    pub address: u64,
}

#[repr(C)]
struct Page {
    /// The signal; 0 means that nothing was written. Written last.
    signal: AtomicU64,
    /// The system call plus one; 0 means none.
    system_call: AtomicU64,
    address: AtomicU64,
}

/// The shared page, mapped in the warden and, by the fork, in the actor.
#[derive(Debug)]
pub struct DeathNoteMemory {
    page: NonNull<Page>,
}

// SAFETY: the page holds atomics only.
unsafe impl Send for DeathNoteMemory {}

/// The page of this process, for the signal handler.
static NOTE: AtomicPtr<Page> = AtomicPtr::new(std::ptr::null_mut());

impl DeathNoteMemory {
    /// An empty note; make it before the fork.
    pub fn new() -> Result<Self, SandboxError> {
        const DOING: &str = "map memory for a death note";
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let page = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                size_of::<Page>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
        }
        .map_err(SandboxError::of(DOING))?;
        let page = NonNull::new(page.cast()).ok_or_else(|| SandboxError::last(DOING))?;
        Ok(Self { page })
    }

    /// In the warden, after the fork: processes forked later do not get this page, which is
    /// between the warden and one actor.
    pub fn hide_from_later_forks(&self) -> Result<(), SandboxError> {
        // SAFETY: the mapping is ours; the advice changes nothing about it in this process.
        let advised = unsafe {
            rustix::mm::madvise(
                self.page.as_ptr().cast(),
                size_of::<Page>(),
                rustix::mm::Advice::LinuxDontFork,
            )
        };
        advised.map_err(SandboxError::of("hide a death note from other actors"))
    }

    /// In the actor: from now on a fatal signal fills the note and ends the process. The mapping
    /// then belongs to the process for good.
    pub fn install_handlers(self) -> Result<(), SandboxError> {
        NOTE.store(self.page.as_ptr(), Ordering::SeqCst);
        std::mem::forget(self);
        for signal in FATAL {
            // SAFETY: an all-zero sigaction is valid; the handler uses only atomics and _exit.
            let result = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_fatal_signal
                    as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void)
                    as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_ONSTACK;
                libc::sigaction(signal, &raw const action, std::ptr::null_mut())
            };
            if result != 0 {
                return Err(SandboxError::last("handle fatal signals"));
            }
        }
        Ok(())
    }

    /// In the warden, after the actor's death: what it wrote. The values come from a process that
    /// may have been taken over, so they are for the log only.
    pub fn read(&self) -> Option<DeathNote> {
        // SAFETY: mapped as long as self lives.
        let page = unsafe { self.page.as_ref() };
        let signal = page.signal.load(Ordering::Acquire);
        let system_call = page.system_call.load(Ordering::Relaxed);
        (signal != 0).then(|| DeathNote {
            signal: signal as i32,
            system_call: system_call.checked_sub(1).map(|number| number as u32),
            address: page.address.load(Ordering::Relaxed),
        })
    }
}

impl Drop for DeathNoteMemory {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.page.as_ptr().cast(), size_of::<Page>()) };
    }
}

extern "C" fn on_fatal_signal(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo to a handler installed with SA_SIGINFO.
    let code = unsafe { (*info).si_code };
    let mut system_call = None;
    let mut address = 0;
    // Codes above zero come from the kernel; another process's have other fields in their place.
    if signal == libc::SIGSYS && code == SYS_SECCOMP {
        // SAFETY: a SIGSYS of seccomp.
        system_call = Some(unsafe { sigsys_number(info) });
    } else if signal != libc::SIGSYS && code > 0 {
        // SAFETY: the other signals that are handled have an address when the kernel sends them.
        address = unsafe { (*info).si_addr() as u64 };
    }
    write_note_and_end(signal, system_call, address)
}

/// Ends the process and leaves a note as if `signal` had ended it. For panics.
pub fn die_noted(signal: libc::c_int) -> ! {
    write_note_and_end(signal, None, 0)
}

fn write_note_and_end(signal: libc::c_int, system_call: Option<u32>, address: u64) -> ! {
    // SAFETY: the pointer is null or the page of this process, which is never unmapped.
    if let Some(page) = unsafe { NOTE.load(Ordering::SeqCst).as_ref() } {
        let system_call = system_call.map_or(0, |number| u64::from(number) + 1);
        page.address.store(address, Ordering::Relaxed);
        page.system_call.store(system_call, Ordering::Relaxed);
        page.signal.store(signal as u64, Ordering::Release);
    }
    // SAFETY: ends the process without running anything else.
    unsafe { libc::_exit(NOTED_EXIT) }
}

/// `si_syscall` of a `SIGSYS`, which the libc crate does not name: behind signal number, errno and
/// code (3 ints, padded to 16 bytes) come a pointer and then the number.
///
/// # Safety
/// `info` is what the kernel passed to a handler of `SIGSYS`.
unsafe fn sigsys_number(info: *const libc::siginfo_t) -> u32 {
    const OFFSET: usize = 24;
    // SAFETY: siginfo_t has 128 bytes.
    unsafe { info.byte_add(OFFSET).cast::<u32>().read() }
}
