//! What a processor needs before it can run ring 3: descriptor tables, a task state segment, stacks.

use core::{cell::UnsafeCell, mem::offset_of};

use super::exceptions::{IDT, IDT_LIMIT, IdtPointer};

/// Bytes of stack for ring 3; formatting and the checks stay far below it.
pub(crate) const STACK_BYTES: usize = 64 * 1024;
/// Bytes of stack for the moments in ring 0: two interrupt frames at most.
pub(crate) const RING0_STACK_BYTES: usize = 1024;

/// Ports that ring 3 may use, as a bitmap of refusals with the byte of ones that ends it. Not IOPL:
/// a KVM that runs ring 3 on the bare processor keeps IOPL at 0 there, but honours the bitmap.
const PORT_BITMAP_BYTES: usize = 65536 / 8 + 1;

/// What the first processor starts ring 3 with; entry.s finds it by its name.
// SAFETY: entry.s refers to this symbol and nothing else defines it.
#[unsafe(no_mangle)]
static BOOT_PROCESSOR: BlockCell = BlockCell(UnsafeCell::new(ProcessorBlock::new(
    crate::run::ring3_main,
    BOOT_STACK.top(),
    BOOT_RING0_STACK.top(),
    0,
)));
static BOOT_STACK: Stack<STACK_BYTES> = Stack::new();
static BOOT_RING0_STACK: Stack<RING0_STACK_BYTES> = Stack::new();

#[repr(transparent)]
struct BlockCell(UnsafeCell<ProcessorBlock>);

// SAFETY: only the processor that starts with the block touches it, in entry.s.
unsafe impl Sync for BlockCell {}

/// What entry.s takes a processor from ring 0 to ring 3 with. It also stores the base addresses of
/// the GDT and of the task state segment, which a constant cannot hold.
#[repr(C, align(64))]
pub(crate) struct ProcessorBlock {
    _gdt_padding: [u16; 3],
    gdt_limit: u16,
    gdt_base: u64,
    _idt_padding: [u16; 3],
    idt_limit: u16,
    idt_base: IdtPointer,
    entry: extern "C" fn(u64) -> !,
    stack: *const u8,
    argument: u64,
    ring0_stack: *const u8,
    pub(crate) gdt: [u64; 7],
    task_state: [u32; 26],
    refused_ports: [u8; PORT_BITMAP_BYTES],
}

// entry.s has these offsets as numbers.
const _: () = assert!(offset_of!(ProcessorBlock, gdt_limit) == 6);
const _: () = assert!(offset_of!(ProcessorBlock, idt_limit) == 22);
const _: () = assert!(offset_of!(ProcessorBlock, entry) == 32);
const _: () = assert!(offset_of!(ProcessorBlock, gdt) == 64);
const _: () = assert!(offset_of!(ProcessorBlock, refused_ports) == 64 + 56 + 104);

impl ProcessorBlock {
    /// Bytes of the GDT less one, as LGDT wants it.
    pub(crate) const GDT_LIMIT: u16 = 7 * 8 - 1;

    /// A processor that calls `entry(argument)` in ring 3.
    pub(crate) const fn new(
        entry: extern "C" fn(u64) -> !,
        stack: *const u8,
        ring0_stack: *const u8,
        argument: u64,
    ) -> Self {
        let mut task_state = [0; 26];
        task_state[25] = 104 << 16; // the bitmap follows the task state
        let mut refused_ports = [0; PORT_BITMAP_BYTES];
        refused_ports[PORT_BITMAP_BYTES - 1] = 0xff;
        Self {
            _gdt_padding: [0; 3],
            gdt_limit: Self::GDT_LIMIT,
            gdt_base: 0,
            _idt_padding: [0; 3],
            idt_limit: IDT_LIMIT,
            idt_base: IDT.pointer(),
            entry,
            stack,
            argument,
            ring0_stack,
            gdt: [
                0,
                0x00af_9b00_0000_ffff, // 08: code, ring 0
                0x00cf_9300_0000_ffff, // 10: data, ring 0
                0x00cf_f300_0000_ffff, // 18: data, ring 3
                0x00af_fb00_0000_ffff, // 20: code, ring 3
                0x0000_8900_0000_0000 | (104 + PORT_BITMAP_BYTES as u64 - 1), // 28: task state
                0,
            ],
            task_state,
            refused_ports,
        }
    }
}

/// Room for a stack.
#[repr(C, align(16))]
pub(crate) struct Stack<const BYTES: usize>(UnsafeCell<[u8; BYTES]>);

// SAFETY: only the processor that runs on the stack touches it.
unsafe impl<const BYTES: usize> Sync for Stack<BYTES> {}

impl<const BYTES: usize> Stack<BYTES> {
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new([0; BYTES]))
    }

    /// Where the stack pointer starts: 8 below the end, as if the entry point had been called.
    pub(crate) const fn top(&self) -> *const u8 {
        // SAFETY: inside of the array, as BYTES is far more than 8.
        unsafe { self.0.get().cast::<u8>().cast_const().add(BYTES - 8) }
    }
}
