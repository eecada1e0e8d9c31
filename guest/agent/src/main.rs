//! The agent in a guest; all of it is in the library, where tests and fuzzers find its parts.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::main()
}
