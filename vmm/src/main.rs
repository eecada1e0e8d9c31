//! The `vmm` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    vmm::cli::main(vmm::machine::run)
}
