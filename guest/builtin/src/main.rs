//! The built-in guest: so far it says that it ran and powers the machine off.
#![no_std]
#![no_main]
use core::arch::{asm, global_asm};
global_asm!(include_str!("entry.s"));

#[repr(C, align(64))]
struct ProcessorBlock {
    _gdt_padding: [u16; 3],
    gdt_limit: u16,
    gdt_base: *const u64,
    _idt_padding: [u16; 3],
    idt_limit: u16,
    idt_base: *const u8,
    entry: extern "C" fn(u64) -> !,
    stack: *const u8,
    argument: u64,
    ring0_stack: *const u8,
    gdt: [u64; 7],
    task_state: [u32; 26],
    bm: [u8; 8200],
}
unsafe impl Sync for ProcessorBlock {}
static mut R0: [u8; 4096] = [0; 4096];
static mut R3: [u8; 65536] = [0; 65536];
#[unsafe(no_mangle)]
static mut BOOT_PROCESSOR: ProcessorBlock = ProcessorBlock {
    _gdt_padding: [0; 3],
    gdt_limit: 55,
    gdt_base: unsafe { (&raw const BOOT_PROCESSOR).cast::<u64>().add(8) },
    _idt_padding: [0; 3],
    idt_limit: 0,
    idt_base: core::ptr::null(),
    entry: ring3_main,
    stack: unsafe { (&raw const R3).cast::<u8>().add(65536 - 8) },
    argument: 0,
    ring0_stack: unsafe { (&raw const R0).cast::<u8>().add(4096) },
    gdt: [
        0,
        0x00af_9a00_0000_ffff,
        0x00cf_9200_0000_ffff,
        0x00cf_f200_0000_ffff,
        0x00af_fa00_0000_ffff,
        0x0000_8900_0000_2068,
        0,
    ],
    task_state: {
        let mut t = [0u32; 26];
        t[25] = 104 << 16;
        t
    },
    bm: [0; 8200],
};

fn outs(port: u16, data: &[u8]) {
    unsafe {
        asm!("rep outsb", in("dx") port, inout("rsi") data.as_ptr() => _, inout("rcx") data.len() => _)
    };
}

extern "C" fn ring3_main(_boot_params: u64) -> ! {
    outs(0x3f8, b"builtin: 0 passed, 0 failed\n");
    unsafe { asm!("out dx, ax", in("dx") 0x604u16, in("ax") 5u16 << 10 | 1 << 13) };
    loop {
        core::hint::spin_loop();
    }
}
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
