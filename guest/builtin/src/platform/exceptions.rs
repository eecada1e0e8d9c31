//! The interrupt descriptor table, and the end of a run that an exception stops.
//!
//! Ring 0 stores what happened in `EXCEPTION` and goes on in `exception_in_ring3`, on a stack of its own.

use core::cell::UnsafeCell;

use super::{descriptors::Stack, power, serial};

/// The breakpoint exception, by which ring 3 calls a service.
const SERVICE_VECTOR: u8 = 3;
/// The vector of the local APIC's timer.
pub(crate) const TIMER_VECTOR: u8 = 0x40;
/// The vector that the local APIC raises when an interrupt vanished.
pub(crate) const SPURIOUS_VECTOR: u8 = 0xff;

/// Bytes of the IDT less one, as LIDT wants it.
pub(crate) const IDT_LIMIT: u16 = 256 * 16 - 1;
/// The IDT as a field of a constant.
pub(crate) type IdtPointer = *const [[u64; 2]; 256];

const EXCEPTIONS: u8 = 32;
/// Bytes of one exception stub in entry.s.
const STUB_BYTES: u64 = 16;

pub(crate) static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; 256]));

#[repr(C, align(16))]
pub(crate) struct Idt(UnsafeCell<[[u64; 2]; 256]>);

// SAFETY: written by `install` before a second processor runs, and by `clear` to end the machine.
unsafe impl Sync for Idt {}

impl Idt {
    pub(crate) const fn pointer(&self) -> IdtPointer {
        self.0.get().cast_const()
    }

    fn set(&self, vector: u8, handler: u64, ring: u64) {
        let interrupt_gate = 0x8e00 | ring << 13; // that this ring may call
        let low =
            handler & 0xffff | 0x08 << 16 | interrupt_gate << 32 | (handler >> 16 & 0xffff) << 48;
        // SAFETY: the processor reads a gate only when its vector is raised, which nothing does
        // while gates are written (see `install`).
        unsafe { (*self.0.get())[usize::from(vector)] = [low, handler >> 32] };
    }

    /// Removes all gates: the next exception shuts the processor down.
    pub(crate) fn clear(&self) {
        // SAFETY: as in `set`; a torn gate is as good as none.
        unsafe { self.0.get().write_volatile([[0; 2]; 256]) };
    }
}

/// Fills the IDT. Called once, first thing in ring 3, with interrupts masked.
pub(crate) fn install() {
    unsafe extern "C" {
        fn exception_stubs();
        fn service();
        fn interrupt_ignored();
    }
    let stubs = exception_stubs as *const () as u64;
    for vector in 0..EXCEPTIONS {
        IDT.set(vector, stubs + u64::from(vector) * STUB_BYTES, 0);
    }
    IDT.set(SERVICE_VECTOR, service as *const () as u64, 3);
    let ignored = interrupt_ignored as *const () as u64;
    IDT.set(TIMER_VECTOR, ignored, 0);
    IDT.set(SPURIOUS_VECTOR, ignored, 0);
}

static EXCEPTION_STACK: Stack<16384> = Stack::new();

/// What ring 0 saw of an exception. entry.s fills it in and takes the stack from it.
#[repr(C)]
struct Exception {
    number: u64,
    error_code: u64,
    instruction: u64,
    stack: u64,
    fault_address: u64,
    handler_stack: *const u8,
}

#[repr(transparent)]
struct ExceptionCell(UnsafeCell<Exception>);

// SAFETY: written in ring 0 just before `exception_in_ring3` reads it. Two processors that fail at
// the same moment may mix their numbers in the message; the run fails all the same.
unsafe impl Sync for ExceptionCell {}

// SAFETY: entry.s refers to this symbol and nothing else defines it.
#[unsafe(no_mangle)]
static EXCEPTION: ExceptionCell = ExceptionCell(UnsafeCell::new(Exception {
    number: 0,
    error_code: 0,
    instruction: 0,
    stack: 0,
    fault_address: 0,
    handler_stack: EXCEPTION_STACK.top(),
}));

// SAFETY: entry.s refers to this symbol and nothing else defines it.
#[unsafe(no_mangle)]
extern "C" fn exception_in_ring3() -> ! {
    // SAFETY: ring 0 filled it in and is done with it.
    let exception = unsafe { &*EXCEPTION.0.get() };
    serial::line(format_args!(
        "exception {}: error code {:#x}, rip {:#x}, rsp {:#x}, cr2 {:#x}",
        exception.number,
        exception.error_code,
        exception.instruction,
        exception.stack,
        exception.fault_address
    ));
    power::fail()
}
