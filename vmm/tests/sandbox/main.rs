//! The sandbox and the warden, from outside and, through the probe actor, from inside.
//!
//! A warden must be forked from a process with one thread, so this file is its own harness. It
//! runs itself again as an ordinary user, and in the role of a machine that gets killed.

mod confinement;
mod deaths;
mod lifetime;
mod policies;
mod world;

use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};

/// Names the role in which this program was started again.
const ROLE: &str = "SANDBOX_TEST_ROLE";
/// Who has no privileges at all.
const NOBODY: u32 = 65_534;

type Test = (&'static str, fn());

fn main() -> ExitCode {
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let filter = filter.as_deref().unwrap_or("");
    match std::env::var(ROLE).as_deref() {
        Ok("machine") => lifetime::play_machine(),
        Ok("ordinary user") => run("ordinary_user", filter),
        _ if rustix::process::geteuid().is_root() => {
            let as_root = run("root", filter);
            let as_nobody = run_as_nobody(filter);
            if as_root == ExitCode::SUCCESS {
                as_nobody
            } else {
                as_root
            }
        }
        _ => run("ordinary_user", filter),
    }
}

fn run(who: &str, filter: &str) -> ExitCode {
    let tests = [
        confinement::TESTS,
        deaths::TESTS,
        lifetime::TESTS,
        policies::TESTS,
    ]
    .concat();
    let chosen = tests.iter().filter(|(name, _)| name.contains(filter));
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in chosen {
        let outcome = catch_unwind(AssertUnwindSafe(test));
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {who}::{name} ... {word}");
        match outcome {
            Ok(()) => passed += 1,
            Err(_) => failed += 1,
        }
    }
    println!("\ntest result as {who}: {passed} passed, {failed} failed\n");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Everything once more, without the privileges that root has.
fn run_as_nobody(filter: &str) -> ExitCode {
    // By this name, because folders on the way to the file may be closed to others.
    let status = Command::new("/proc/self/exe")
        .arg(filter)
        .env(ROLE, "ordinary user")
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .status()
        .expect("this program runs as an ordinary user");
    if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
