//! What the first processor's registers hold when it starts.

use crate::memory::GuestAddress;

/// General-purpose registers, instruction pointer and flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the fields are the registers of the same names")]
pub struct GeneralRegisters {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// Access rights of a segment, laid out as bits 40 to 55 of its descriptor without the four bits of
/// the limit (Intel SDM volume 3A, 3.4.5): type, S, DPL, P in the low byte, AVL, L, D/B, G on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentAccess(pub u16);

impl SegmentAccess {
    /// 64-bit code, readable, accessed.
    pub const CODE_64: Self = Self(0xa09b);
    /// 32-bit code with 4 KiB granularity, readable, accessed.
    pub const CODE_32: Self = Self(0xc09b);
    /// 32-bit data with 4 KiB granularity, writable, accessed.
    pub const DATA: Self = Self(0xc093);
    /// A busy task state segment of 32 or, in long mode, 64 bits.
    pub const TASK: Self = Self(0x008b);
    /// No segment: not present, not usable.
    pub const NONE: Self = Self(0);

    fn bits(self, shift: u32, mask: u16) -> u8 {
        (self.0 >> shift & mask) as u8
    }

    /// Type (bits 3:0).
    #[must_use]
    pub fn type_(self) -> u8 {
        self.bits(0, 0xf)
    }

    /// S: 1 for code and data, 0 for system segments.
    #[must_use]
    pub fn s(self) -> u8 {
        self.bits(4, 1)
    }

    /// Descriptor privilege level.
    #[must_use]
    pub fn dpl(self) -> u8 {
        self.bits(5, 3)
    }

    /// P: whether the segment is there.
    #[must_use]
    pub fn present(self) -> u8 {
        self.bits(7, 1)
    }

    /// AVL: for the operating system's use.
    #[must_use]
    pub fn avl(self) -> u8 {
        self.bits(12, 1)
    }

    /// L: 64-bit code.
    #[must_use]
    pub fn l(self) -> u8 {
        self.bits(13, 1)
    }

    /// D/B: 32-bit code, stack or limit.
    #[must_use]
    pub fn db(self) -> u8 {
        self.bits(14, 1)
    }

    /// G: the limit counts pages.
    #[must_use]
    pub fn g(self) -> u8 {
        self.bits(15, 1)
    }
}

/// A segment register with its hidden part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment {
    /// Byte offset of its descriptor in the GDT.
    pub selector: u16,
    /// First address.
    pub base: u64,
    /// Last offset in bytes, whatever the granularity.
    pub limit: u32,
    /// Access rights; [`SegmentAccess::NONE`] makes the register unusable.
    pub access: SegmentAccess,
}

impl Segment {
    /// Its eight-byte descriptor.
    #[must_use]
    pub fn descriptor(&self) -> u64 {
        let limit = if self.access.g() == 1 { self.limit >> 12 } else { self.limit };
        let (limit, base) = (u64::from(limit), self.base);
        let access = u64::from(self.access.0);
        (limit & 0xffff)
            | (base & 0xff_ffff) << 16
            | (access & 0xff) << 40
            | (limit >> 16 & 0xf) << 48
            | (access >> 12) << 52
            | (base >> 24 & 0xff) << 56
    }
}

/// GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DescriptorTable {
    /// Where the table is.
    pub base: GuestAddress,
    /// Its last offset.
    pub limit: u16,
}

/// CR0 bits (Intel SDM volume 3A, 2.5).
pub mod cr0 {
    /// Protection enable.
    pub const PE: u64 = 1 << 0;
    /// Extension type, always 1.
    pub const ET: u64 = 1 << 4;
    /// Paging.
    pub const PG: u64 = 1 << 31;
}

/// CR4 bits (Intel SDM volume 3A, 2.5).
pub mod cr4 {
    /// Physical address extension.
    pub const PAE: u64 = 1 << 5;
}

/// EFER bits (Intel SDM volume 3A, 2.2.1).
pub mod efer {
    /// Long mode enable.
    pub const LME: u64 = 1 << 8;
    /// Long mode active.
    pub const LMA: u64 = 1 << 10;
}

/// Bit 1 of RFLAGS is always set; all others start clear.
pub(super) const RFLAGS: u64 = 1 << 1;

/// All registers that the boot protocols define. The other processors start by INIT and SIPI, in the
/// state that the hypervisor gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InitialRegisters {
    /// General-purpose registers.
    pub general: GeneralRegisters,
    /// Code segment.
    pub cs: Segment,
    /// DS, ES, FS, GS and SS.
    pub data: Segment,
    /// Task register.
    pub tr: Segment,
    /// Local descriptor table: none.
    pub ldt: Segment,
    /// Global descriptor table.
    pub gdt: DescriptorTable,
    /// Interrupt descriptor table: empty.
    pub idt: DescriptorTable,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 3: the page tables.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Extended feature enable register.
    pub efer: u64,
}
