//! A thread's registers (`struct elf_prstatus` of Linux) as a minidump has them.

use minidump_common::format::{CONTEXT_AMD64, ContextFlagsAmd64};
use zerocopy::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Of FXSAVE (Intel SDM, volume 1, section 10.5.1), and of a minidump's place for it.
pub(crate) const FLOAT_BYTES: usize = 512;
/// `MXCSR` in it.
const MXCSR: usize = 24;

/// `struct elf_prstatus`.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Status {
    pub(crate) signal: I32,
    pub(crate) code: I32,
    pub(crate) error: I32,
    pub(crate) current_signal: U16,
    pub(crate) padding: U16,
    pub(crate) pending: [U64; 2],
    pub(crate) id: U32,
    pub(crate) others: [U32; 3],
    pub(crate) times: [U64; 8],
    pub(crate) registers: Registers,
    pub(crate) float_valid: [U32; 2],
}

/// `struct user_regs_struct`.
#[derive(Debug, Clone, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Registers {
    pub(crate) r15: U64,
    pub(crate) r14: U64,
    pub(crate) r13: U64,
    pub(crate) r12: U64,
    pub(crate) rbp: U64,
    pub(crate) rbx: U64,
    pub(crate) r11: U64,
    pub(crate) r10: U64,
    pub(crate) r9: U64,
    pub(crate) r8: U64,
    pub(crate) rax: U64,
    pub(crate) rcx: U64,
    pub(crate) rdx: U64,
    pub(crate) rsi: U64,
    pub(crate) rdi: U64,
    pub(crate) system_call: U64,
    pub(crate) rip: U64,
    pub(crate) cs: U64,
    pub(crate) eflags: U64,
    pub(crate) rsp: U64,
    pub(crate) ss: U64,
    pub(crate) fs_base: U64,
    pub(crate) gs_base: U64,
    pub(crate) ds: U64,
    pub(crate) es: U64,
    pub(crate) fs: U64,
    pub(crate) gs: U64,
}

/// A thread.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) id: u32,
    pub(crate) registers: Registers,
    pub(crate) float: Option<Box<[u8; FLOAT_BYTES]>>,
}

impl Thread {
    pub(crate) fn context(&self) -> CONTEXT_AMD64 {
        let r = &self.registers;
        let mut flags = ContextFlagsAmd64::CONTEXT_AMD64_CONTROL
            | ContextFlagsAmd64::CONTEXT_AMD64_INTEGER
            | ContextFlagsAmd64::CONTEXT_AMD64_SEGMENTS;
        let mut context = CONTEXT_AMD64 {
            cs: r.cs.get() as u16,
            ds: r.ds.get() as u16,
            es: r.es.get() as u16,
            fs: r.fs.get() as u16,
            gs: r.gs.get() as u16,
            ss: r.ss.get() as u16,
            eflags: r.eflags.get() as u32,
            rax: r.rax.get(),
            rcx: r.rcx.get(),
            rdx: r.rdx.get(),
            rbx: r.rbx.get(),
            rsp: r.rsp.get(),
            rbp: r.rbp.get(),
            rsi: r.rsi.get(),
            rdi: r.rdi.get(),
            r8: r.r8.get(),
            r9: r.r9.get(),
            r10: r.r10.get(),
            r11: r.r11.get(),
            r12: r.r12.get(),
            r13: r.r13.get(),
            r14: r.r14.get(),
            r15: r.r15.get(),
            rip: r.rip.get(),
            ..CONTEXT_AMD64::default()
        };
        if let Some(float) = &self.float {
            flags |= ContextFlagsAmd64::CONTEXT_AMD64_FLOATING_POINT;
            context.float_save = **float;
            if let Some(mxcsr) = float.get(MXCSR..).and_then(<[u8]>::first_chunk) {
                context.mx_csr = u32::from_le_bytes(*mxcsr);
            }
        }
        context.context_flags = flags.bits();
        context
    }
}
