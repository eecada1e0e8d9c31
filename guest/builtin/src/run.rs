//! The main line, from the first instruction in ring 3 to the end of the machine.

use core::{
    arch::global_asm,
    panic::PanicInfo,
    sync::atomic::{Ordering, compiler_fence},
};

use crate::{
    boot_params::{BYTES, BootParams, COMMAND_LINE_LIMIT},
    checks,
    cmdline::{Ending, Options},
    platform::{exceptions, firmware, heap, power, serial},
    report::{Report, Verdict},
};

global_asm!(include_str!("entry.s"));

/// The heap stays below what page tables of the loader or of entry.s show as devices.
const HEAP_LIMIT: u64 = 3 << 30;

/// What ring 0 calls on the first processor, with the address of `boot_params`.
pub(crate) extern "C" fn ring3_main(boot_params: u64) -> ! {
    exceptions::install();
    let (params, line) = copy_parameters(boot_params);
    set_up_heap(&params);
    let options = match Options::parse(&line.text()) {
        Ok(options) => options,
        Err(error) => stop(&error),
    };
    let mut report = Report::new(options.format);
    checks::run(&params, &options, &mut report);
    if options.hold_seconds > 0 {
        checks::hold(&params, options.hold_seconds);
    }
    match (report.finish(), options.ending) {
        (Verdict::Failed, _) | (_, Ending::Panic) => power::fail(),
        (_, Ending::PowerOff) => power::off(),
        (_, Ending::Reset) => power::reset(),
        (_, Ending::TripleFault) => power::triple_fault(),
    }
}

/// A command line as it was found.
struct CommandLine([u8; COMMAND_LINE_LIMIT]);

impl CommandLine {
    fn text(&self) -> alloc::string::String {
        let length = self.0.iter().position(|byte| *byte == 0).unwrap_or(COMMAND_LINE_LIMIT);
        alloc::string::String::from_utf8_lossy(&self.0[..length]).into_owned()
    }
}

/// Copies what the loader left, before anything of it is written over.
fn copy_parameters(boot_params: u64) -> (BootParams, CommandLine) {
    let mut params = BootParams([0; BYTES]);
    let mut line = CommandLine([0; COMMAND_LINE_LIMIT]);
    let Some(page) = firmware::bytes(boot_params, BYTES as u64) else {
        stop("the loader gave no boot_params");
    };
    params.0.copy_from_slice(page);
    if let Some(address) = params.command_line() {
        let Some(bytes) = firmware::bytes(address, COMMAND_LINE_LIMIT as u64) else {
            stop("the command line is out of reach");
        };
        line.0.copy_from_slice(bytes);
    }
    // The copies are complete before the heap takes its memory.
    compiler_fence(Ordering::SeqCst);
    (params, line)
}

/// Gives the heap the RAM behind the image, up to the ramdisk.
fn set_up_heap(params: &BootParams) {
    let start = heap::image_end();
    let Some(ram) = params.ram().find(|ram| ram.contains(&start)) else {
        stop("E820 has no RAM behind the image");
    };
    let ramdisk = params.ramdisk().start;
    let end = if ramdisk > start { ram.end.min(ramdisk) } else { ram.end };
    // SAFETY: RAM behind the image, mapped by entry.s; what the loader left there was copied.
    unsafe { heap::set_up(start, end.min(HEAP_LIMIT)) };
}

/// Ends a run that cannot even begin.
fn stop(why: &str) -> ! {
    serial::line(format_args!("builtin: {why}"));
    power::fail()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    serial::line(format_args!("builtin: {info}"));
    power::fail()
}
