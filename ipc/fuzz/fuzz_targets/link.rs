//! A peer that does what the input says; see `ipc::link::hostile`.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| ipc::link::hostile::run(script));
