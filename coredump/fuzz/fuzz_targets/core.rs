//! Core dumps of any bytes. What comes out is bounded, and a minidump for others too.
#![no_main]

use coredump::{About, MAX_BYTES, convert};
use libfuzzer_sys::fuzz_target;
use minidump::{Minidump, MinidumpException, MinidumpModuleList, MinidumpThreadList};

fuzz_target!(|core: &[u8]| {
    let about = About { kernel: "Linux 6.1.0", ..About::default() };
    let Ok(crash) = convert(core, &about) else { return };
    assert!(crash.minidump.len() <= MAX_BYTES);
    let dump = Minidump::read(crash.minidump).unwrap();
    let exception = dump.get_stream::<MinidumpException>().unwrap();
    assert_eq!(exception.get_crashing_thread_id(), crash.thread);
    dump.get_stream::<MinidumpThreadList>().unwrap();
    let _ = dump.get_stream::<MinidumpModuleList>();
});
