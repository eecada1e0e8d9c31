//! Has a process make a system call that its seccomp policy forbids.
//!
//! A debugger's work: the process is interrupted, a system call instruction is written where it stands,
//! and it goes on from there with the number of a forbidden call. So it is the kernel that finds the
//! violation, in the process itself, and everything from there on is as with a program that was taken
//! over. An actor cannot be traced by those of its own user; it takes root.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;

use anyhow::{Context, Result, bail};
use rustix::process::Pid;

/// What no policy allows: actors open nothing.
const FORBIDDEN: libc::c_long = libc::SYS_openat;
/// `syscall; ud2` as they stand in memory: if the call were allowed, the process would die of the second.
const CODE: u32 = u32::from_le_bytes([0x0f, 0x05, 0x0f, 0x0b]);

/// Has the process violate its policy and go on, which it does not do for long.
pub(super) fn violate(pid: Pid) -> Result<()> {
    let tracee = Tracee::seize(pid).context("cannot trace it")?;
    tracee.interrupt().context("cannot interrupt it")?;
    tracee.go_astray().context("cannot change what it does")
    // It goes on when the tracee is let go of.
}

/// A process that is traced by this thread.
struct Tracee(libc::pid_t);

impl Tracee {
    fn seize(pid: Pid) -> io::Result<Self> {
        let pid = pid.as_raw_nonzero().get();
        request(libc::PTRACE_SEIZE, pid, 0, 0)?;
        Ok(Self(pid))
    }

    /// Stops it in a way that its parent does not see.
    fn interrupt(&self) -> Result<()> {
        request(libc::PTRACE_INTERRUPT, self.0, 0, 0)?;
        let mut status = 0;
        // SAFETY: writes the status.
        while unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) } == -1 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error.into());
            }
        }
        if status >> 16 != libc::PTRACE_EVENT_STOP {
            bail!("it did something else first: wait status {status:#x}");
        }
        Ok(())
    }

    fn go_astray(&self) -> io::Result<()> {
        let mut registers = MaybeUninit::<libc::user_regs_struct>::uninit();
        request(libc::PTRACE_GETREGS, self.0, 0, registers.as_mut_ptr().addr())?;
        // SAFETY: the kernel has filled it.
        let mut registers = unsafe { registers.assume_init() };
        let place = registers.rip as usize;
        let word = self.peek(place)?;
        let word = word & !(u32::MAX as usize) | CODE as usize;
        request(libc::PTRACE_POKETEXT, self.0, place, word)?;
        registers.rax = FORBIDDEN as u64;
        // It was in no call that has to be made again.
        registers.orig_rax = u64::MAX;
        request(libc::PTRACE_SETREGS, self.0, 0, (&raw const registers).addr())
    }

    fn peek(&self, place: usize) -> io::Result<usize> {
        // SAFETY: reads the memory of the tracee; the result may be -1 in good faith, so errno tells.
        unsafe {
            *libc::__errno_location() = 0;
            let word = libc::ptrace(libc::PTRACE_PEEKTEXT, self.0, place, 0_usize);
            match *libc::__errno_location() {
                0 => Ok(word as usize),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        // When it is dead, there is nothing to let go of.
        let _ = request(libc::PTRACE_DETACH, self.0, 0, 0);
    }
}

fn request(what: libc::c_uint, pid: libc::pid_t, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: the requests above read or write registers of the size that the kernel expects, or touch
    // nothing of this process.
    match unsafe { libc::ptrace(what, pid, address, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
