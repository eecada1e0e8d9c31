//! `cargo xtask miri`: tests of the code that is unsafe, under an interpreter that knows what must not be done.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};
use clap::Args;

use crate::project;

/// Run tests of the executor and of channels under Miri, as far as they get by without a kernel
///
/// Takes a nightly toolchain with Miri (`rustup toolchain install nightly --component miri,rust-src`).
#[derive(Args)]
pub(crate) struct MiriArguments {
    /// Say what runs, and what does not and why, and do nothing
    #[arg(long)]
    list: bool,
}

/// Tests of one crate.
struct Suite {
    package: &'static str,
    /// Which of its tests.
    target: &'static [&'static str],
    /// What is left out, and why.
    without: &'static [(&'static str, &'static str)],
}

const SUITES: &[Suite] = &[
    Suite {
        package: "executor",
        target: &["--lib"],
        without: &[
            ("driver::uring", "rings of the kernel's"),
            ("processors", "processors that threads are put on, and an executor of the kernel's"),
        ],
    },
    Suite {
        package: "ipc",
        target: &["--lib"],
        without: &[("hostile", "memory that processes share: Miri has no memfd")],
    },
    Suite {
        package: "ipc",
        target: &["--test", "local"],
        without: &[
            ("a_channel_behaves_like_a_bounded_deque", "hundreds of cases of proptest"),
            ("a_call_is_answered_refused_closed_or_late", "an executor of the kernel's"),
            ("requests_left_in_a_dropped_channel_are_refused", "the same"),
            ("an_answer_to_nobody_is_dropped", "the same"),
        ],
    },
];

/// Whole files of tests that are left out.
const FILES: &[(&str, &str)] = &[
    ("executor/tests", "each executor there has a ring or an epoll of the kernel's"),
    ("ipc/tests/link*, looking, placements", "memory that processes share, and forks"),
    ("ipc/tests/models", "these are loom's"),
];

pub(crate) fn run(arguments: &MiriArguments) -> Result<ExitCode> {
    if arguments.list {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    let there = miri().arg("--version").output().is_ok_and(|said| said.status.success());
    if !there {
        bail!(
            "there is no Miri: `rustup toolchain install nightly --component miri,rust-src` installs it"
        );
    }
    for Suite { package, target, without } in SUITES {
        let mut test = miri();
        test.args(["test", "--package", package]).args(*target).arg("--");
        for (name, _) in *without {
            test.args(["--skip", name]);
        }
        project::run(&mut test)?;
    }
    list();
    Ok(ExitCode::SUCCESS)
}

fn miri() -> Command {
    let mut rustup = Command::new("rustup");
    rustup.args(["run", "nightly", "cargo", "miri"]).current_dir(project::root());
    rustup.env("CARGO_TARGET_DIR", project::target().join("miri"));
    // Tests look at the clock.
    rustup.env("MIRIFLAGS", "-Zmiri-disable-isolation");
    // A toolchain that this program was started by is not the one that is meant.
    rustup.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    rustup
}

fn list() {
    for Suite { package, target, without } in SUITES {
        println!("runs: {package} {}", target.join(" "));
        for (name, why) in *without {
            println!("  not {name}: {why}");
        }
    }
    for (name, why) in FILES {
        println!("not {name}: {why}");
    }
}
