//! Tells a KVM that runs guests natively from one that emulates their ring-0 code, by measuring:
//! stock Linux boots under the first kind only.

// KVM takes memory by address.
#![allow(unsafe_code)]

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use rustix::mm::{MapFlags, ProtFlags};

/// Emulators were seen at about 1, native guests run at hundreds and more.
const NATIVE_MIPS: f64 = 50.0;

/// Loop turns of one measurement after another: 100 ms in all where code is emulated. The first ones
/// also pay for the guest's first page faults and, on a host that is emulated itself, for the
/// translation of KVM's own code, which has looked like an emulated ring 0.
const TURNS: [u32; 4] = [10_000, 10_000, 20_000, 40_000];

/// `dec ecx; jnz .-2; hlt`
const CODE: [u8; 4] = [0x49, 0x75, 0xfd, 0xf4];
const INSTRUCTIONS_PER_TURN: f64 = 2.0;

const PAGE: usize = 4096;
const GUEST_CODE: u64 = 0x1000;

/// What /dev/kvm is good for.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// Guests run natively, at so many million instructions per second.
    Native { mips: f64 },
    /// Ring 0 is emulated.
    Emulated { mips: f64 },
    /// There is no usable KVM, and why.
    Unusable(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native { mips } => {
                write!(formatter, "KVM runs guests natively ({mips:.0} million instructions/s)")
            }
            Self::Emulated { mips } => {
                write!(formatter, "KVM emulates ring 0 ({mips:.1} million instructions/s)")
            }
            Self::Unusable(reason) => write!(formatter, "KVM cannot be used: {reason}"),
        }
    }
}

/// Looks at /dev/kvm.
pub(crate) fn probe() -> Verdict {
    match measure() {
        Ok(mips) if mips > NATIVE_MIPS => Verdict::Native { mips },
        Ok(mips) => Verdict::Emulated { mips },
        Err(error) => Verdict::Unusable(format!("{error:#}")),
    }
}

/// The rate of the best run; ends as soon as one is native.
fn measure() -> Result<f64> {
    let mut vcpu = create()?;
    let mut best: f64 = 0.0;
    for turns in TURNS {
        let time = run_loop(&mut vcpu, turns)?;
        best = best.max(f64::from(turns) * INSTRUCTIONS_PER_TURN / time.as_secs_f64() / 1e6);
        if best > NATIVE_MIPS {
            break;
        }
    }
    Ok(best)
}

/// A vCPU of a VM that has one page with the loop.
fn create() -> Result<VcpuFd> {
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    let vm = kvm.create_vm().context("cannot create a VM")?;
    // SAFETY: a new private mapping that nothing else knows.
    let memory = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            PAGE,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }
    .context("cannot map a page")?;
    // SAFETY: the mapping is a page long and ours alone.
    unsafe { std::ptr::copy_nonoverlapping(CODE.as_ptr(), memory.cast(), CODE.len()) };
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: GUEST_CODE,
        memory_size: PAGE as u64,
        userspace_addr: memory as u64,
    };
    // SAFETY: the mapping stays as long as the process: it is never unmapped.
    unsafe { vm.set_user_memory_region(region) }.context("cannot give the VM memory")?;
    vm.create_vcpu(0).context("cannot create a vCPU")
}

/// Runs the loop in 32-bit protected mode at ring 0 and returns the time that it took.
fn run_loop(vcpu: &mut VcpuFd, turns: u32) -> Result<Duration> {
    set_registers(vcpu, turns).context("cannot set the vCPU's registers")?;
    let start = Instant::now();
    match vcpu.run().context("cannot run the vCPU")? {
        VcpuExit::Hlt => Ok(start.elapsed()),
        exit => bail!("the loop ended with {exit:?}"),
    }
}

fn set_registers(vcpu: &VcpuFd, turns: u32) -> Result<()> {
    /// CR0.PE
    const PROTECTED: u64 = 1;
    let mut special = vcpu.get_sregs()?;
    special.cr0 |= PROTECTED;
    let data =
        [&mut special.ds, &mut special.es, &mut special.ss, &mut special.fs, &mut special.gs];
    for segment in data {
        (segment.base, segment.limit, segment.selector) = (0, u32::MAX, 0x10);
        (segment.type_, segment.s, segment.present, segment.db, segment.g) = (3, 1, 1, 1, 1);
    }
    let code = &mut special.cs;
    (code.base, code.limit, code.selector) = (0, u32::MAX, 0x8);
    (code.type_, code.s, code.present, code.db, code.g) = (11, 1, 1, 1, 1);
    vcpu.set_sregs(&special)?;
    let mut registers = vcpu.get_regs()?;
    registers.rip = GUEST_CODE;
    registers.rflags = 2;
    registers.rcx = u64::from(turns);
    vcpu.set_regs(&registers)?;
    Ok(())
}
