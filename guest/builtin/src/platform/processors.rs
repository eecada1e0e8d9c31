//! Starting the other processors.
//!
//! One after the other: the trampoline, a page below 1 MiB, takes the processor from real mode to
//! the same ring 0 code that the first one came through, with a block of its own.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering, fence};

use super::{
    descriptors::{ProcessorBlock, RING0_STACK_BYTES, STACK_BYTES, Stack},
    lapic::LocalApic,
    services, time,
};

/// Where the trampoline is copied to; entry.s knows this address too. Below the EBDA, and no longer
/// of use to the loader, whose tables this program has left.
pub(crate) const TRAMPOLINE: u64 = 0x8000;
const PAGE: u64 = 4096;
/// A processor starts within milliseconds; a loaded host takes its time.
const PATIENCE_SECONDS: u64 = 5;

/// What a processor is started for.
struct Start {
    started: AtomicBool,
    task: fn(),
}

/// Starts a processor: it runs `task` in ring 3 and then halts for good. Whether it came up.
pub(crate) fn start(lapic: &LocalApic, apic_id: u8, task: fn()) -> bool {
    let start: &'static Start =
        Box::leak(Box::new(Start { started: AtomicBool::new(false), task }));
    let stack: &'static Stack<STACK_BYTES> = zeroed_stack();
    let ring0_stack: &'static Stack<RING0_STACK_BYTES> = zeroed_stack();
    let argument = (&raw const *start).expose_provenance() as u64;
    let block: &'static mut ProcessorBlock = Box::leak(Box::new(ProcessorBlock::new(
        ring3_entry,
        stack.top(),
        ring0_stack.top(),
        argument,
    )));
    place_trampoline(block);
    fence(Ordering::SeqCst);
    lapic.start(apic_id, (TRAMPOLINE / PAGE) as u8);
    time::wait_for(PATIENCE_SECONDS, || start.started.load(Ordering::Acquire))
}

/// A stack straight from the heap: one on the way there, on this processor's own, would not fit.
fn zeroed_stack<const BYTES: usize>() -> &'static Stack<BYTES> {
    // SAFETY: bytes, for which 0 is a value.
    Box::leak(unsafe { Box::new_zeroed().assume_init() })
}

extern "C" fn ring3_entry(argument: u64) -> ! {
    let start = core::ptr::with_exposed_provenance::<Start>(argument as usize);
    // SAFETY: `start` put a reference there that lives for ever.
    let start = unsafe { &*start };
    start.started.store(true, Ordering::Release);
    (start.task)();
    services::park()
}

/// Copies the trampoline and fills in its two operands: the GDT pointer and the block.
fn place_trampoline(block: &mut ProcessorBlock) {
    unsafe extern "C" {
        static trampoline_start: u8;
        static trampoline_gdt: u8;
        static trampoline_block: u8;
        static trampoline_end: u8;
    }
    let start = &raw const trampoline_start;
    let target = core::ptr::with_exposed_provenance_mut::<u8>(TRAMPOLINE as usize);
    let gdt = (&raw mut block.gdt).expose_provenance() as u32;
    let block = (&raw mut *block).expose_provenance() as u32;
    // SAFETY: the four symbols bound one piece of entry.s, shorter than a page; the target page is
    // RAM that nothing else uses, and no processor is in it: the last one has reported from ring 3.
    unsafe {
        let length = (&raw const trampoline_end).offset_from_unsigned(start);
        start.copy_to_nonoverlapping(target, length);
        let gdt_pointer = target.add((&raw const trampoline_gdt).offset_from_unsigned(start));
        gdt_pointer.cast::<u16>().write_unaligned(ProcessorBlock::GDT_LIMIT);
        gdt_pointer.add(2).cast::<u32>().write_unaligned(gdt);
        let operand = target.add((&raw const trampoline_block).offset_from_unsigned(start));
        operand.cast::<u32>().write_unaligned(block);
    }
}
