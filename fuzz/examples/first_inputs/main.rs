//! Writes inputs that fuzzers would take long to find: what drivers and front ends really say.
//!
//! ```text
//! cargo run -p fuzz --example first_inputs
//! ```
//!
//! Fuzzers go on from there. To be run again when a target reads its inputs in another way.

mod directory;
mod front_end;
mod function;
mod guest;
mod simple;

use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, inputs) in [
        ("blk", simple::blk()),
        ("net", simple::net()),
        ("vsock", simple::vsock()),
        ("console", simple::console()),
        ("balloon", simple::balloon()),
        ("rng", simple::rng()),
        ("pmem", simple::pmem()),
        ("fs", directory::fs()),
        ("pci", function::pci()),
        ("vhost-user", front_end::vhost_user()),
    ] {
        for (number, input) in inputs.iter().enumerate() {
            fs::write(corpus.join(target).join(format!("first-{number}")), input)?;
        }
    }
    Ok(())
}
