//! The architectures that policies can be compiled for: their system calls and audit numbers.

use std::str::FromStr;

/// An instruction set with its system call numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Arch {
    /// The one that this program runs on.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// `AUDIT_ARCH_*` of linux/audit.h, as the kernel tells it to a filter.
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xC000_003E,
            Self::Aarch64 => 0xC000_00B7,
        }
    }

    /// The first number that is no call of this architecture's 64-bit table, if filters can see
    /// one: on x86, x32 calls have the audit number of 64-bit ones and bit 30 set.
    pub(crate) const fn foreign_from(self) -> Option<u32> {
        match self {
            Self::X86_64 => Some(0x4000_0000),
            Self::Aarch64 => None,
        }
    }

    /// The number of a system call, if this architecture has it.
    pub fn number(self, name: &str) -> Option<u32> {
        match self {
            Self::X86_64 => syscalls::x86_64::Sysno::from_str(name).ok().map(|call| call as u32),
            Self::Aarch64 => syscalls::aarch64::Sysno::from_str(name).ok().map(|call| call as u32),
        }
    }

    /// The name of a system call.
    pub fn name(self, number: u32) -> Option<&'static str> {
        let number = number as usize;
        match self {
            Self::X86_64 => syscalls::x86_64::Sysno::new(number).map(|call| call.name()),
            Self::Aarch64 => syscalls::aarch64::Sysno::new(number).map(|call| call.name()),
        }
    }

    /// Whether any architecture has the call: such a name is no spelling mistake.
    pub(crate) fn any_has(name: &str) -> bool {
        [Self::X86_64, Self::Aarch64].iter().any(|arch| arch.number(name).is_some())
    }
}
