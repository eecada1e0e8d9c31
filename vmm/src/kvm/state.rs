//! The state of a vCPU before its first instruction, in KVM's structs.

use arch::x86_64::boot::{DescriptorTable, InitialRegisters, Segment};
use arch::x86_64::msrs::Msr;
use kvm_bindings::{
    CpuId, KVM_INTERNAL_ERROR_EMULATION, Msrs, kvm_cpuid_entry2, kvm_dtable, kvm_msr_entry,
    kvm_regs, kvm_segment,
};
use kvm_ioctls::VcpuFd;

use super::KvmError;

pub(super) fn set_cpuid(vcpu: &VcpuFd, entries: &[kvm_cpuid_entry2]) -> Result<(), KvmError> {
    let cpuid = CpuId::from_entries(entries).map_err(|_| KvmError::Ioctl {
        doing: "set the CPUID leaves of a vCPU",
        source: std::io::ErrorKind::OutOfMemory.into(),
    })?;
    vcpu.set_cpuid2(&cpuid).map_err(KvmError::ioctl("set the CPUID leaves of a vCPU"))
}

/// Sets the MSRs that a kernel expects from firmware. A software-only KVM refuses some; those are
/// skipped and named, because a guest gets along without any one of them.
pub(super) fn set_msrs(vcpu: &VcpuFd, id: u8, msrs: &[Msr]) -> Result<(), KvmError> {
    let entries: Vec<kvm_msr_entry> = msrs
        .iter()
        .map(|msr| kvm_msr_entry { index: msr.index, data: msr.value, ..Default::default() })
        .collect();
    let mut rest = &entries[..];
    while !rest.is_empty() {
        let batch = Msrs::from_entries(rest).map_err(|_| KvmError::Ioctl {
            doing: "set the MSRs of a vCPU",
            source: std::io::ErrorKind::OutOfMemory.into(),
        })?;
        // KVM stops at the first that it refuses and says how many it took.
        let taken = vcpu.set_msrs(&batch).map_err(KvmError::ioctl("set the MSRs of a vCPU"))?;
        if let Some(refused) = rest.get(taken) {
            log::debug!(
                "vCPU {id}: KVM refuses MSR {:#x} = {:#x}; it is left as it is",
                refused.index,
                refused.data
            );
        }
        rest = rest.get(taken + 1..).unwrap_or_default();
    }
    Ok(())
}

pub(super) fn set_registers(vcpu: &VcpuFd, start: &InitialRegisters) -> Result<(), KvmError> {
    let mut special =
        vcpu.get_sregs().map_err(KvmError::ioctl("read the special registers of a vCPU"))?;
    special.cs = segment(&start.cs);
    for register in
        [&mut special.ds, &mut special.es, &mut special.fs, &mut special.gs, &mut special.ss]
    {
        *register = segment(&start.data);
    }
    special.tr = segment(&start.tr);
    special.ldt = segment(&start.ldt);
    special.gdt = table(start.gdt);
    special.idt = table(start.idt);
    special.cr0 = start.cr0;
    special.cr3 = start.cr3;
    special.cr4 = start.cr4;
    special.efer = start.efer;
    vcpu.set_sregs(&special).map_err(KvmError::ioctl("set the special registers of a vCPU"))?;

    let from = &start.general;
    let general = kvm_regs {
        rax: from.rax,
        rbx: from.rbx,
        rcx: from.rcx,
        rdx: from.rdx,
        rsi: from.rsi,
        rdi: from.rdi,
        rsp: from.rsp,
        rbp: from.rbp,
        r8: from.r8,
        r9: from.r9,
        r10: from.r10,
        r11: from.r11,
        r12: from.r12,
        r13: from.r13,
        r14: from.r14,
        r15: from.r15,
        rip: from.rip,
        rflags: from.rflags,
    };
    vcpu.set_regs(&general).map_err(KvmError::ioctl("set the registers of a vCPU"))
}

fn segment(from: &Segment) -> kvm_segment {
    kvm_segment {
        base: from.base,
        limit: from.limit,
        selector: from.selector,
        type_: from.access.type_(),
        present: from.access.present(),
        dpl: from.access.dpl(),
        db: from.access.db(),
        s: from.access.s(),
        l: from.access.l(),
        g: from.access.g(),
        avl: from.access.avl(),
        unusable: u8::from(from.access.present() == 0),
        padding: 0,
    }
}

fn table(from: DescriptorTable) -> kvm_dtable {
    kvm_dtable { base: from.base.value(), limit: from.limit, ..Default::default() }
}

/// Says in words why KVM could not go on: what it reports, and where the guest was.
pub(super) fn describe_failure(vcpu: &mut VcpuFd) -> String {
    let run = vcpu.get_kvm_run();
    // SAFETY: the caller has just got KVM_EXIT_INTERNAL_ERROR, which fills this member.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let what = if internal.suberror == KVM_INTERNAL_ERROR_EMULATION {
        // Words 1.. hold flags, then the number and bytes of the instruction.
        let bytes: Vec<u8> =
            internal.data[2..4].iter().flat_map(|word| word.to_le_bytes()).collect();
        let count = usize::from(internal.data[1] as u8).min(15);
        format!("KVM cannot emulate an instruction (code {:02x?}, size byte {count})", &bytes[..])
    } else {
        format!("KVM internal error {}", internal.suberror)
    };
    match vcpu.get_regs() {
        Ok(registers) => format!("{what} at rip {:#x}", registers.rip),
        Err(_) => what,
    }
}
