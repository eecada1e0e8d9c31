//! The state of the machine before the first instruction of a kernel.
//!
//! ```text
//!  0x0500 GDT   0x6000 PVH start info   0x7000 zero page   0x9000 page tables   0x2_0000 command line
//!  ...    kernel segments from 1 MiB or above     ...     initrd, at the top of low RAM
//! ```
//!
//! [`plan`] decides where everything goes and returns it as bytes with addresses and a set of
//! registers. Kernel and initrd are not among the bytes: the caller reads them from their files
//! straight into guest memory, at the places that
//! [`KernelImage::segments`](super::kernel::KernelImage::segments) and [`BootPlan::initrd`] say.

mod error;
mod linux64;
mod pvh;
mod registers;

#[cfg(test)]
mod tests;

pub use error::BootError;
pub use registers::{
    DescriptorTable, GeneralRegisters, InitialRegisters, Segment, SegmentAccess, cr0, cr4, efer,
};

use super::kernel::{KernelImage, Protocol};
use super::layout::{COMMAND_LINE, GDT, PAGE_SIZE, Ram};
use crate::memory::{Blob, GuestAddress, GuestRange, align_down, align_up};

/// The longest command line of a kernel that does not say: Linux' `COMMAND_LINE_SIZE` is 2048 with
/// the terminator.
const COMMAND_LINE_MAX: usize = 2047;

/// What to start.
#[derive(Debug, Clone, Copy)]
pub struct BootRequest<'a> {
    /// The kernel.
    pub kernel: &'a KernelImage,
    /// The machine's memory.
    pub ram: Ram,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Length of the initrd in bytes, if there is one.
    pub initrd_length: Option<u64>,
    /// Where the ACPI root pointer (RSDP) is, if there are ACPI tables.
    pub rsdp: Option<GuestAddress>,
}

/// How to start it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootPlan {
    /// Bytes to be in guest memory; no two overlap, nor any the kernel or the initrd.
    pub blobs: Vec<Blob>,
    /// Where the initrd goes.
    pub initrd: Option<GuestRange>,
    /// The first processor's registers.
    pub registers: InitialRegisters,
}

/// Places kernel, command line and initrd, and builds what their boot protocol asks for.
pub fn plan(request: &BootRequest<'_>) -> Result<BootPlan, BootError> {
    check_kernel(request)?;
    let command_line = command_line(request)?;
    let initrd = request.initrd_length.map(|length| place_initrd(request, length)).transpose()?;

    let (mut blobs, registers) = match request.kernel.protocol() {
        Protocol::Pvh => pvh::state(request, initrd),
        Protocol::Linux64 { header } => linux64::state(request, header.as_ref(), initrd),
    };
    blobs.push(command_line);
    Ok(BootPlan { blobs, initrd, registers })
}

fn check_kernel(request: &BootRequest<'_>) -> Result<(), BootError> {
    let low = request.ram.low();
    let outside = request
        .kernel
        .segments()
        .iter()
        .map(super::kernel::Segment::memory)
        .find(|&k| !low.covers(k));
    match outside {
        Some(kernel) => Err(BootError::KernelDoesNotFit { kernel, ram_end: low.end().0 }),
        None => Ok(()),
    }
}

fn command_line(request: &BootRequest<'_>) -> Result<Blob, BootError> {
    let text = request.command_line.as_bytes();
    let max = match request.kernel.protocol() {
        Protocol::Linux64 { header: Some(header) } => header.command_line_max() as usize,
        _ => COMMAND_LINE_MAX,
    };
    let max = max.min(COMMAND_LINE.length() as usize - 1);
    if text.len() > max {
        return Err(BootError::CommandLineTooLong { length: text.len(), max });
    }
    if let Some(position) = text.iter().position(|&byte| byte == 0) {
        return Err(BootError::CommandLineHasNul { position });
    }
    let mut bytes = text.to_vec();
    bytes.push(0);
    Ok(Blob::new(COMMAND_LINE.start(), bytes))
}

/// The initrd goes as high as the kernel can reach it in low RAM, out of the way of a kernel that
/// moves or unpacks itself.
fn place_initrd(request: &BootRequest<'_>, length: u64) -> Result<GuestRange, BootError> {
    if length == 0 {
        return Err(BootError::InitrdEmpty);
    }
    let reachable = match request.kernel.protocol() {
        Protocol::Linux64 { header: Some(header) } => u64::from(header.initrd_address_max()) + 1,
        _ => u64::MAX,
    };
    let end = align_down(request.ram.low().end().0.min(reachable), PAGE_SIZE);
    let kernel_end = request.kernel.memory().end().0;
    let start = align_up(kernel_end, PAGE_SIZE).unwrap_or(end).min(end);
    let room = GuestRange::between(start, end);
    let available = room.length();
    end.checked_sub(length)
        .map(|start| align_down(start, PAGE_SIZE))
        .and_then(|start| GuestRange::new(GuestAddress(start), length))
        .filter(|&initrd| room.covers(initrd))
        .ok_or(BootError::InitrdTooLarge { length, room, available })
}

/// Selectors that the 64-bit Linux boot protocol prescribes (`__BOOT_CS`, `__BOOT_DS`), and a task
/// segment behind them.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TASK_SELECTOR: u16 = 0x20;

/// Flat segments over all addresses, and the GDT that describes them.
fn flat_segments(code: SegmentAccess) -> (InitialRegisters, Blob) {
    let flat = |selector, access| Segment { selector, base: 0, limit: u32::MAX, access };
    let cs = flat(CODE_SELECTOR, code);
    let data = flat(DATA_SELECTOR, SegmentAccess::DATA);
    // 0x67 is the least limit of a task segment (Intel SDM volume 3A, 8.2.2).
    let tr = Segment { selector: TASK_SELECTOR, base: 0, limit: 0x67, access: SegmentAccess::TASK };

    // In long mode a task segment's descriptor has 16 bytes; the upper half of ours is zero.
    let table = [0, 0, cs.descriptor(), data.descriptor(), tr.descriptor(), 0];
    let bytes: Vec<u8> = table.into_iter().flat_map(u64::to_le_bytes).collect();
    let gdt = DescriptorTable { base: GDT, limit: bytes.len() as u16 - 1 };
    let registers = InitialRegisters { cs, data, tr, gdt, ..InitialRegisters::default() };
    (registers, Blob::new(GDT, bytes))
}
