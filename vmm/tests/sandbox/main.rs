//! The sandbox and the warden, from outside and, through the probe actor, from inside.
//!
//! A warden must be forked from a process with one thread, so this file is its own harness. It
//! runs itself again as an ordinary user, without `io_uring`, and in the role of a machine that gets killed.

mod confinement;
mod deaths;
mod disks;
mod lifetime;
mod logs;
mod policies;
mod refused;
mod world;

use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};

use seccomp::{Arch, NoIncludes, Options};

/// Names the role in which this program was started again.
const ROLE: &str = "SANDBOX_TEST_ROLE";
/// Who has no privileges at all.
const NOBODY: u32 = 65_534;

type Test = (&'static str, fn());

fn main() -> ExitCode {
    logs::listen();
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let filter = filter.as_deref().unwrap_or("");
    match std::env::var(ROLE).as_deref() {
        Ok("machine") => lifetime::play_machine(),
        Ok("refused machine") => refused::play_machine(),
        Ok("ordinary user") => run("ordinary_user", filter),
        Ok("without io_uring") => {
            // As container runtimes do.
            forbid("io_uring_setup");
            run("without_io_uring", filter)
        }
        _ => {
            let is_root = rustix::process::geteuid().is_root();
            let first = run(if is_root { "root" } else { "ordinary_user" }, filter);
            let mut outcomes = vec![first, run_again("without io_uring", None, filter)];
            outcomes.push(run_machine_test(filter));
            if is_root {
                outcomes.push(run_again("ordinary user", Some(NOBODY), filter));
            } else {
                println!("skipped: only root can run this as both root and an ordinary user");
            }
            let failed = outcomes.into_iter().find(|outcome| *outcome != ExitCode::SUCCESS);
            failed.unwrap_or(ExitCode::SUCCESS)
        }
    }
}

/// From now on the kernel refuses this call.
fn forbid(call: &str) {
    let policy = format!("@denylist\n{call}: return EPERM\n");
    let policy = seccomp::parse("test", &policy, Arch::HOST, &NoIncludes).expect("a policy");
    let program = seccomp::compile(&policy, Arch::HOST, Options::default()).expect("a filter");
    program.install().expect("installs");
}

fn run(who: &str, filter: &str) -> ExitCode {
    let tests = [
        confinement::TESTS,
        deaths::TESTS,
        disks::TESTS,
        lifetime::TESTS,
        logs::TESTS,
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
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The one test that needs a KVM.
fn run_machine_test(filter: &str) -> ExitCode {
    const NAME: &str = "a_host_without_namespaces_is_a_start_error";
    if !NAME.contains(filter) {
        return ExitCode::SUCCESS;
    }
    if let Some(reason) = refused::missing() {
        println!("test {NAME} ... skipped: {reason}\n\ntest result: 1 skipped\n");
        return ExitCode::SUCCESS;
    }
    let passed = catch_unwind(refused::a_host_without_namespaces_is_a_start_error).is_ok();
    println!("test {NAME} ... {}\n", if passed { "ok" } else { "FAILED" });
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Everything once more, in another role and perhaps as another user.
fn run_again(role: &str, user: Option<u32>, filter: &str) -> ExitCode {
    // By this name, because folders on the way to the file may be closed to others.
    let mut command = Command::new("/proc/self/exe");
    command.arg(filter).env(ROLE, role).current_dir("/");
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let status = command.status().expect("this program runs again");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
