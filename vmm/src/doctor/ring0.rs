//! The smallest guest: a loop in ring 0, to see how fast this KVM runs kernel code.
//!
//! It runs in 32-bit protected mode without paging. Real mode would be emulated on processors
//! that run every other mode by themselves.

use std::io;
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use kvm_bindings::{kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use thiserror::Error;

/// `dec ecx; jnz -3; hlt`
const CODE: [u8; 4] = [0x49, 0x75, 0xfd, 0xf4];

/// The instructions of one turn of the loop.
const INSTRUCTIONS_PER_TURN: u32 = 2;

/// All the memory of the guest.
const MEMORY_BYTES: usize = 4096;

/// Where the processors that need one find a task state segment: below the BIOS, clear of memory.
const TASK_STATE: usize = 0xfffb_d000;

/// About 20 ms in an emulator; too few to say more of a processor than that it is none.
const FIRST_TURNS: u32 = 10_000;

/// About 1 ms on a processor, which drowns the cost of entering and leaving the guest.
const FURTHER_TURNS: u32 = 2_000_000;

/// A first run that takes longer than this is a measurement already.
const LONG_ENOUGH: Duration = Duration::from_millis(2);

/// Why there is no measurement.
#[derive(Debug, Error)]
pub(super) enum Error {
    /// A step of making the guest failed.
    #[error("cannot {0}")]
    Step(&'static str, #[source] io::Error),
    /// The guest did something else than to stop.
    #[error("the loop guest left with {0}")]
    Exit(String),
}

/// The first guest of a fresh host pays for what the host sets up once; the best of these counts.
const ATTEMPTS: usize = 3;

/// A processor; no emulator comes near.
const SURELY_NATIVE_MIPS: f64 = 200.0;

/// Runs the loop and gives millions of instructions per second.
pub(super) fn measure(kvm: &Kvm) -> Result<f64, Error> {
    let mut best = measure_once(kvm)?;
    for _ in 1..ATTEMPTS {
        if best >= SURELY_NATIVE_MIPS {
            break;
        }
        best = best.max(measure_once(kvm)?);
    }
    Ok(best)
}

fn measure_once(kvm: &Kvm) -> Result<f64, Error> {
    let memory = Memory::new()?;
    let vm = kvm.create_vm().map_err(|error| step("create a VM", error))?;
    vm.set_tss_address(TASK_STATE).map_err(|error| step("set the task state segment", error))?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: MEMORY_BYTES as u64,
        userspace_addr: memory.0.as_ptr() as u64,
    };
    // SAFETY: the region is mapped with this size, and `memory` outlives the VM: it was declared
    // first, so it is dropped last.
    unsafe { vm.set_user_memory_region(region) }
        .map_err(|error| step("give the VM memory", error))?;
    let mut vcpu = vm.create_vcpu(0).map_err(|error| step("create a CPU", error))?;
    enter_protected_mode(&vcpu)?;
    let first = run(&mut vcpu, FIRST_TURNS)?;
    if first > LONG_ENOUGH {
        return Ok(mips(FIRST_TURNS, first));
    }
    Ok(mips(FURTHER_TURNS, run(&mut vcpu, FURTHER_TURNS)?))
}

fn step(what: &'static str, error: kvm_ioctls::Error) -> Error {
    Error::Step(what, error.into())
}

fn enter_protected_mode(vcpu: &VcpuFd) -> Result<(), Error> {
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

fn run(vcpu: &mut VcpuFd, turns: u32) -> Result<Duration, Error> {
    let registers = kvm_regs { rip: 0, rcx: u64::from(turns), rflags: 2, ..kvm_regs::default() };
    vcpu.set_regs(&registers).map_err(|error| step("set the CPU's registers", error))?;
    let start = Instant::now();
    match vcpu.run() {
        Ok(VcpuExit::Hlt) => Ok(start.elapsed()),
        Ok(exit) => Err(Error::Exit(format!("{exit:?}"))),
        Err(error) => Err(step("run the CPU", error)),
    }
}

fn mips(turns: u32, elapsed: Duration) -> f64 {
    f64::from(turns) * f64::from(INSTRUCTIONS_PER_TURN) / elapsed.as_secs_f64().max(1e-9) / 1e6
}

/// A page with the loop in it.
struct Memory(NonNull<u8>);

impl Memory {
    fn new() -> Result<Self, Error> {
        // SAFETY: a new private mapping at an address that the kernel chooses touches nothing.
        let mapping = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                MEMORY_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let mapping = mapping.map_err(|error| Error::Step("map memory", error.into()))?;
        let memory = NonNull::new(mapping.cast::<u8>())
            .ok_or_else(|| Error::Step("map memory", io::ErrorKind::OutOfMemory.into()))?;
        // SAFETY: the mapping is longer than the code, writable and seen by nobody else yet.
        unsafe { memory.copy_from_nonoverlapping(NonNull::from(&CODE).cast(), CODE.len()) };
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
