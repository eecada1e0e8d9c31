//! The smallest guest: some instructions in ring 0, run as often as is wanted.
//!
//! It runs in 32-bit protected mode without paging. Real mode would be emulated on processors
//! that run every other mode by themselves.

use std::io;
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use kvm_bindings::{kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use thiserror::Error;

/// All the memory of the guest.
const MEMORY_BYTES: usize = 4096;

/// Where the processors that need one find a task state segment: below the BIOS, clear of memory.
const TASK_STATE: usize = 0xfffb_d000;

/// Why it does not run.
#[derive(Debug, Error)]
pub(crate) enum TinyGuestError {
    /// A step of making the guest failed.
    #[error("cannot {0}")]
    Step(&'static str, #[source] io::Error),
    /// The guest did something else than to stop.
    #[error("the loop guest left with {0}")]
    Exit(String),
}

/// What the program does in a turn of its loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing but to count.
    Nothing,
    /// A byte to port 0x80.
    Port,
    /// Four bytes to an address without memory.
    Mmio,
    /// A question to the hypervisor that KVM answers by itself.
    Cpuid,
}

/// Where there is no memory.
const NOWHERE: u64 = 0x10_0000;
/// What a guest may write to without doing harm.
pub(crate) const PORT: u16 = 0x80;

impl Turn {
    /// `dec esi; jnz; hlt` behind what the turn does.
    fn code(self) -> &'static [u8] {
        match self {
            Turn::Nothing => &[0x4e, 0x75, 0xfd, 0xf4],
            // out dx, al
            Turn::Port => &[0xee, 0x4e, 0x75, 0xfc, 0xf4],
            // mov [edi], eax
            Turn::Mmio => &[0x89, 0x07, 0x4e, 0x75, 0xfb, 0xf4],
            // cpuid
            Turn::Cpuid => &[0x0f, 0xa2, 0x4e, 0x75, 0xfb, 0xf4],
        }
    }

    /// Instructions of a turn.
    pub(crate) fn instructions(self) -> u32 {
        if self == Turn::Nothing { 2 } else { 3 }
    }
}

/// A guest with one CPU.
pub(crate) struct TinyGuest {
    // In this order: memory goes last.
    vcpu: VcpuFd,
    vm: VmFd,
    _memory: Memory,
}

impl TinyGuest {
    /// A guest whose loop does this.
    pub(crate) fn new(kvm: &Kvm, turn: Turn) -> Result<Self, TinyGuestError> {
        let memory = Memory::new(turn.code())?;
        let vm = kvm.create_vm().map_err(|error| step("create a VM", error))?;
        vm.set_tss_address(TASK_STATE)
            .map_err(|error| step("set the task state segment", error))?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: MEMORY_BYTES as u64,
            userspace_addr: memory.0.as_ptr() as u64,
        };
        // SAFETY: the region is mapped with this size, and the memory is dropped after the VM.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(|error| step("give the VM memory", error))?;
        let vcpu = vm.create_vcpu(0).map_err(|error| step("create a CPU", error))?;
        enter_protected_mode(&vcpu)?;
        Ok(Self { vcpu, vm, _memory: memory })
    }

    /// The VM, for what goes beside the CPU.
    pub(crate) fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// Runs so many turns. What leaves the guest on the way is let pass.
    pub(crate) fn run(&mut self, turns: u32) -> Result<Duration, TinyGuestError> {
        let registers = kvm_regs {
            rip: 0,
            rsi: u64::from(turns),
            rdi: NOWHERE,
            rdx: u64::from(PORT),
            rflags: 2,
            ..kvm_regs::default()
        };
        self.vcpu.set_regs(&registers).map_err(|error| step("set the CPU's registers", error))?;
        let start = Instant::now();
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::Hlt) => return Ok(start.elapsed()),
                Ok(VcpuExit::IoOut(..) | VcpuExit::MmioWrite(..)) => {}
                Ok(exit) => return Err(TinyGuestError::Exit(format!("{exit:?}"))),
                Err(error) => return Err(step("run the CPU", error)),
            }
        }
    }
}

fn step(what: &'static str, error: kvm_ioctls::Error) -> TinyGuestError {
    TinyGuestError::Step(what, error.into())
}

fn enter_protected_mode(vcpu: &VcpuFd) -> Result<(), TinyGuestError> {
    let mut special = vcpu.get_sregs().map_err(|error| step("read the CPU's registers", error))?;
    let flat = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: 8,
        type_: 0b1011,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    special.cs = flat;
    let data = kvm_segment { selector: 16, type_: 0b0011, ..flat };
    (special.ds, special.es, special.fs) = (data, data, data);
    (special.gs, special.ss) = (data, data);
    // Protection Enable.
    special.cr0 |= 1;
    vcpu.set_sregs(&special).map_err(|error| step("set the CPU's mode", error))
}

/// A page with the loop in it.
struct Memory(NonNull<u8>);

impl Memory {
    fn new(code: &[u8]) -> Result<Self, TinyGuestError> {
        // SAFETY: a new private mapping at an address that the kernel chooses touches nothing.
        let mapping = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                MEMORY_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let mapping = mapping.map_err(|error| TinyGuestError::Step("map memory", error.into()))?;
        let memory = NonNull::new(mapping.cast::<u8>())
            .ok_or_else(|| TinyGuestError::Step("map memory", io::ErrorKind::OutOfMemory.into()))?;
        // SAFETY: the mapping is longer than any code, writable and seen by nobody else yet.
        unsafe { memory.as_ptr().copy_from_nonoverlapping(code.as_ptr(), code.len()) };
        Ok(Self(memory))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this size in `new` and nothing refers to it any more.
        // A failure would leave one page mapped.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), MEMORY_BYTES) };
    }
}
