//! Everything that agent and host read by themselves, and that the other one, programs of the guest or its
//! kernel have written: the first byte says what it is.
#![no_main]

use agent::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&kind, bytes)) = input.split_first() else { return };
    match kind % 9 {
        0 => fuzzing::syslog(bytes),
        1 => fuzzing::kernel_record(bytes),
        2 => fuzzing::listening(bytes),
        3 => fuzzing::connect_line(bytes),
        4 => fuzzing::firmware(bytes),
        5 => fuzzing::mount_options(bytes),
        6 => fuzzing::users(bytes),
        7 => fuzzing::crash(bytes),
        _ => _ = agent_client::is_acceptance(bytes),
    }
});
