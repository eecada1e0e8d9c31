//! Any of the targets under libFuzzer: the variable `FUZZ_TARGET` says which. `cargo xtask fuzz` runs it.
#![no_main]

use std::sync::OnceLock;

use fuzz::Target;

/// Looked up once.
static TARGET: OnceLock<&Target> = OnceLock::new();

fn chosen() -> &'static Target {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    fuzz::target(&name).unwrap_or_else(|| panic!("there is no target {name}"))
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.get_or_init(chosen).run)(input));
