//! One virtual CPU: its state at start, and one step of its life.

use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arch::x86_64::boot::InitialRegisters;
use arch::x86_64::msrs::Msr;
use devices::bus::Bus;
use kvm_bindings::{kvm_cpuid_entry2, kvm_run};
use kvm_ioctls::{VcpuExit, VcpuFd};
use rustix::mm::{MapFlags, ProtFlags};

use super::{KvmError, state};

/// What one entry into the guest ended with.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// An access was carried out, or nothing of note happened: enter again.
    Continue,
    /// A kick or a signal ended the entry: look for messages, then enter again.
    Interrupted,
    /// A triple fault: the guest is gone.
    TripleFault,
    /// KVM gave up on the guest's code, with its reason in words.
    Failed(String),
}

/// A vCPU, owned by the thread that runs it.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    id: u8,
    /// The page that KVM shares with us; the wrapper hides the operand size of string I/O.
    shared: Arc<RunPage>,
}

impl Vcpu {
    pub(super) fn new(fd: VcpuFd, id: u8, run_size: usize) -> Result<Self, KvmError> {
        let shared = Arc::new(RunPage::map(&fd, run_size)?);
        Ok(Self { fd, id, shared })
    }

    /// The vCPU's number, which is its APIC id too.
    pub fn id(&self) -> u8 {
        self.id
    }

    /// Sets CPUID, MSRs and registers; call once, before the first [`Self::step`].
    pub fn set_up(
        &self,
        cpuid: &[kvm_cpuid_entry2],
        msrs: &[Msr],
        start: Option<&InitialRegisters>,
    ) -> Result<(), KvmError> {
        state::set_cpuid(&self.fd, cpuid)?;
        state::set_msrs(&self.fd, self.id, msrs)?;
        match start {
            Some(start) => state::set_registers(&self.fd, start),
            // Application processors wait for INIT and SIPI in the state KVM made them.
            None => Ok(()),
        }
    }

    /// Something that can interrupt this vCPU from another thread.
    pub fn kicker(&self) -> VcpuKicker {
        VcpuKicker { shared: Arc::clone(&self.shared) }
    }

    /// Enters the guest once and carries out the access that it exits with.
    pub fn step(&mut self, ports: &Bus, mmio: &Bus) -> Step {
        match self.fd.run() {
            Ok(VcpuExit::MmioRead(address, data)) => mmio.read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => mmio.write(address, data),
            Ok(VcpuExit::IoIn(port, data)) => {
                let size = self.shared.io_operand_size(data.len());
                data.chunks_exact_mut(size).for_each(|item| ports.read(u64::from(port), item));
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                let size = self.shared.io_operand_size(data.len());
                data.chunks_exact(size).for_each(|item| ports.write(u64::from(port), item));
            }
            Ok(VcpuExit::Shutdown) => return Step::TripleFault,
            Ok(VcpuExit::Intr | VcpuExit::Hlt | VcpuExit::IrqWindowOpen) => {
                return Step::Interrupted;
            }
            Ok(VcpuExit::InternalError) => {
                return Step::Failed(state::describe_failure(&mut self.fd));
            }
            Ok(VcpuExit::FailEntry(reason, cpu)) => {
                return Step::Failed(format!("entry failed on host CPU {cpu}, reason {reason:#x}"));
            }
            Ok(other) => return Step::Failed(format!("unexpected exit: {other:?}")),
            Err(error) => return self.step_error(error),
        }
        Step::Continue
    }

    /// Has the guest's clock say that the vCPU stood still, so that no watchdog of the guest takes a
    /// pause for a hang (`KVM_KVMCLOCK_CTRL`). Call it between two entries.
    pub fn tell_of_pause(&self) {
        let Err(error) = self.fd.kvmclock_ctrl() else { return };
        match error.errno() {
            // The guest does not use that clock; this kernel does not have it.
            libc::EINVAL | libc::ENOTTY => {}
            errno => {
                let error = std::io::Error::from_raw_os_error(errno);
                log::warn!("vCPU {}: its clock does not tell of the pause: {error}", self.id);
            }
        }
    }

    fn step_error(&mut self, error: kvm_ioctls::Error) -> Step {
        match error.errno() {
            libc::EINTR => {
                self.shared.immediate_exit().store(0, Ordering::SeqCst);
                Step::Interrupted
            }
            libc::EAGAIN => Step::Continue,
            errno => Step::Failed(format!("KVM_RUN: {}", std::io::Error::from_raw_os_error(errno))),
        }
    }
}

/// Ends a guest entry of one vCPU from any thread.
#[derive(Debug, Clone)]
pub struct VcpuKicker {
    shared: Arc<RunPage>,
}

impl VcpuKicker {
    /// Makes the vCPU's current or next entry end with [`Step::Interrupted`].
    ///
    /// `immediate_exit` covers the gap before `KVM_RUN`, the signal an entry under way. `thread`
    /// is the thread that runs the vCPU.
    pub fn kick(&self, thread: libc::pthread_t) {
        self.shared.immediate_exit().store(1, Ordering::SeqCst);
        // SAFETY: the caller holds the join handle of `thread`, so the id is not stale; the
        // signal's handler does nothing.
        unsafe { libc::pthread_kill(thread, kick_signal()) };
    }
}

/// The signal that interrupts `KVM_RUN`; a real-time one, which nothing else uses.
fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN()
}

/// Installs the empty handler of the kick signal; without one the signal would end the process.
pub fn install_kick_handler() -> std::io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: an all-zero sigaction is valid; the handler is async-signal-safe: it does nothing.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(kick_signal(), &raw const action, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// A mapping of `struct kvm_run` of our own beside the wrapper's, with a life of its own, so that
/// a kicker can never point at freed memory.
#[derive(Debug)]
struct RunPage {
    base: NonNull<kvm_run>,
    length: usize,
}

// SAFETY: the page is shared memory; the only fields touched from other threads are accessed
// atomically (`immediate_exit`).
unsafe impl Send for RunPage {}
// SAFETY: as above.
unsafe impl Sync for RunPage {}

impl RunPage {
    fn map(fd: &VcpuFd, length: usize) -> Result<Self, KvmError> {
        // SAFETY: the wrapper keeps `fd` open during this call.
        let vcpu = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd.as_raw_fd()) };
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                vcpu.as_fd(),
                0,
            )
        }
        .map_err(|errno| KvmError::Ioctl {
            doing: "share the run page of a vCPU",
            source: errno.into(),
        })?;
        let base = NonNull::new(base.cast()).ok_or_else(|| KvmError::Ioctl {
            doing: "share the run page of a vCPU",
            source: std::io::ErrorKind::OutOfMemory.into(),
        })?;
        Ok(Self { base, length })
    }

    fn immediate_exit(&self) -> &AtomicU8 {
        // SAFETY: the mapping lives as long as self, and the field is one byte at any alignment.
        unsafe { AtomicU8::from_ptr(&raw mut (*self.base.as_ptr()).immediate_exit) }
    }

    /// The operand size of the port access that the last entry ended with, never more than
    /// `available` bytes and never 0.
    fn io_operand_size(&self, available: usize) -> usize {
        // SAFETY: only the vCPU's own thread calls this, right after KVM_RUN returned with an
        // I/O exit, so KVM does not write the union now.
        let size = unsafe { (*self.base.as_ptr()).__bindgen_anon_1.io.size };
        usize::from(size).clamp(1, available.max(1))
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `map` made, and nothing refers to it any more.
        if let Err(errno) = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) } {
            log::warn!("the run page of a vCPU stays mapped: {errno}");
        }
    }
}
