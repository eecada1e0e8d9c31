//! The model-specific registers that a kernel expects firmware to have set.

/// A register and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Msr {
    /// Its number.
    pub index: u32,
    /// What it is to hold.
    pub value: u64,
    /// Its name in the manual.
    pub name: &'static str,
}

const fn msr(index: u32, value: u64, name: &'static str) -> Msr {
    Msr { index, value, name }
}

/// Fast string operation (Intel SDM volume 4, table 2-2).
const MISC_ENABLE_FAST_STRING: u64 = 1 << 0;
/// MTRRs are on, and memory that no other MTRR names is write-back (Intel SDM volume 3A, 12.11.2.1).
/// There are no others: a kernel maps device memory as uncacheable by its page tables.
const MTRR_DEFAULT_WRITE_BACK: u64 = 1 << 11 | 6;

/// For every processor alike. The system call registers have their values from reset; they are set
/// so that a machine that is started again does not keep those of the kernel before.
const BOOT: &[Msr] = &[
    msr(0x174, 0, "IA32_SYSENTER_CS"),
    msr(0x175, 0, "IA32_SYSENTER_ESP"),
    msr(0x176, 0, "IA32_SYSENTER_EIP"),
    msr(0xc000_0081, 0, "IA32_STAR"),
    msr(0xc000_0082, 0, "IA32_LSTAR"),
    msr(0xc000_0083, 0, "IA32_CSTAR"),
    msr(0xc000_0084, 0, "IA32_FMASK"),
    msr(0xc000_0102, 0, "IA32_KERNEL_GS_BASE"),
    msr(0x10, 0, "IA32_TIME_STAMP_COUNTER"),
    msr(0x1a0, MISC_ENABLE_FAST_STRING, "IA32_MISC_ENABLE"),
    msr(0x2ff, MTRR_DEFAULT_WRITE_BACK, "IA32_MTRR_DEF_TYPE"),
];

/// What to set on each processor before it starts. A hypervisor may refuse some of them.
#[must_use]
pub fn boot_msrs() -> &'static [Msr] {
    BOOT
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_register_is_set_twice() {
        let indices: HashSet<_> = boot_msrs().iter().map(|msr| msr.index).collect();
        assert_eq!(indices.len(), boot_msrs().len());
    }

    #[test]
    fn memory_is_write_back_by_default() {
        let mtrr = boot_msrs().iter().find(|msr| msr.name == "IA32_MTRR_DEF_TYPE").unwrap();
        assert_eq!((mtrr.index, mtrr.value), (0x2ff, 0x806));
    }
}
