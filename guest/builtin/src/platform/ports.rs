//! Port I/O. Safe in the sense of memory: no device of the machine changes RAM because of a port
//! access alone.

use core::arch::asm;

pub(crate) fn write_u8(port: u16, value: u8) {
    // SAFETY: see the module.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

pub(crate) fn write_u16(port: u16, value: u16) {
    // SAFETY: see the module.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack)) };
}

pub(crate) fn write_u32(port: u16, value: u32) {
    // SAFETY: see the module.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack)) };
}

pub(crate) fn read_u8(port: u16) -> u8 {
    let value;
    // SAFETY: see the module.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) };
    value
}

pub(crate) fn read_u32(port: u16) -> u32 {
    let value;
    // SAFETY: see the module.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack)) };
    value
}

/// Writes the bytes one after the other, with one instruction.
pub(crate) fn write_bytes(port: u16, bytes: &[u8]) {
    // SAFETY: reads exactly `bytes`; see the module for the rest.
    unsafe {
        asm!(
            "rep outsb",
            in("dx") port,
            inout("rsi") bytes.as_ptr() => _,
            inout("rcx") bytes.len() => _,
            options(readonly, nostack)
        );
    }
}
