//! What ring 3 asks ring 0 for, by a breakpoint: halting, and CPUID as the monitor answers it.

use core::arch::{asm, x86_64::CpuidResult};

/// Numbers of the services; entry.s has them too.
const HALT: u32 = 0;
const PARK: u32 = 1;
const CPUID: u32 = 2;

/// Halts until an interrupt arrives. The caller has armed one.
pub(crate) fn halt() {
    // SAFETY: the service runs on a stack of its own and keeps all registers.
    unsafe { asm!("int3", in("edi") HALT) };
}

/// Halts this processor for good.
pub(crate) fn park() -> ! {
    // SAFETY: the service does not come back.
    unsafe { asm!("int3", in("edi") PARK, options(noreturn)) };
}

/// CPUID in ring 0: a monitor that runs ring 3 on the bare processor answers it only there.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    let (eax, ebx, ecx, edx): (u32, u64, u32, u32);
    // SAFETY: the service runs on a stack of its own and changes these registers only; RBX, which
    // LLVM keeps for itself, is put back.
    unsafe {
        asm!(
            "mov {keep}, rbx",
            "int3",
            "xchg {keep}, rbx",
            keep = out(reg) ebx,
            in("edi") CPUID,
            inout("eax") leaf => eax,
            inout("ecx") subleaf => ecx,
            out("edx") edx,
        );
    }
    CpuidResult { eax, ebx: ebx as u32, ecx, edx }
}
