//! A driver that sends what the input says; see `devices::virtio::fs::read_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| devices::virtio::fs::read_request(bytes));
