//! `vmm exec --runner`: as the program that starts what cargo has built.
//!
//! ```text
//!   cargo test ──▶ vmm exec OPTIONS --runner target/debug/deps/test-1234 --nocapture
//!                                            └─ a command, as if `--` were before it
//! ```

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The option after which everything is the command.
const RUNNER: &str = "--runner";

/// What cargo, nextest and the tools around them tell to programs that they start.
const PREFIXES: [&str; 4] = ["CARGO", "RUST", "NEXTEST", "INSTA_"];
const NAMES: [&str; 5] = ["LD_LIBRARY_PATH", "OUT_DIR", "LLVM_PROFILE_FILE", "TERM", "NO_COLOR"];

/// Ends the options of `vmm exec` after `--runner`: cargo puts the program there, without a `--`.
pub(super) fn end_options(arguments: &mut Vec<OsString>) {
    let end = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
    if let Some(at) = arguments[..end].iter().position(|word| word == RUNNER) {
        arguments.insert(at + 1, "--".into());
    }
}

/// The variables that the command gets of those here.
pub(super) fn environment() -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let is_wanted = |name: &OsStr| {
        let name = name.as_bytes();
        PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
            || NAMES.iter().any(|wanted| name == wanted.as_bytes())
    };
    std::env::vars_os()
        .filter(move |(name, _)| is_wanted(name))
        .map(|(name, value)| (name.into_vec(), value.into_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_is_the_command() {
        let of = |line: &str| {
            let mut words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            end_options(&mut words);
            words.join(OsStr::new(" ")).into_string().unwrap()
        };
        assert_eq!(
            of("vmm exec -c 2 --runner test --list"),
            "vmm exec -c 2 --runner -- test --list"
        );
        assert_eq!(of("vmm exec -- test --runner"), "vmm exec -- test --runner");
        assert_eq!(of("vmm exec --runner"), "vmm exec --runner --");
    }
}
