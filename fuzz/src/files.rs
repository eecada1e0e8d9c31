//! Files that somebody made.

use arch::x86_64::kernel::KernelImage;
use coredump::{About, MAX_BYTES, convert};
use initramfs::Modules;
use minidump::{Minidump, MinidumpException, MinidumpModuleList, MinidumpThreadList};

/// A kernel: every segment lies in the file, and the entry in what is loaded.
pub(crate) fn kernel(input: &[u8]) {
    let Ok(image) = KernelImage::probe(input) else { return };
    let memory = image.memory();
    for segment in image.segments() {
        let place = segment.memory();
        assert!(memory.start().0 <= place.start().0 && place.end().0 <= memory.end().0);
        assert!(segment.file_offset + segment.file_size <= input.len() as u64);
    }
}

/// `modules.dep` and `modules.builtin`, divided by a zero.
pub(crate) fn modules(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (dependencies, builtin) = text.split_once('\0').unwrap_or((&text, ""));
    let modules = Modules::parse(dependencies, builtin);
    let wanted: Vec<&str> = builtin.split_whitespace().take(8).chain(["virtio_pci"]).collect();
    let order = modules.load_order(&wanted);
    let mut seen = order.clone();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), order.len(), "a module is loaded once");
}

/// A core dump. What comes out is bounded, and a minidump for others too.
pub(crate) fn core(input: &[u8]) {
    let about = About { kernel: "Linux 6.1.0", ..About::default() };
    let Ok(crash) = convert(input, &about) else { return };
    assert!(crash.minidump.len() <= MAX_BYTES);
    let dump = Minidump::read(crash.minidump).expect("a minidump");
    let exception = dump.get_stream::<MinidumpException>().expect("why it died");
    assert_eq!(exception.get_crashing_thread_id(), crash.thread);
    dump.get_stream::<MinidumpThreadList>().expect("threads");
    let _ = dump.get_stream::<MinidumpModuleList>();
}
