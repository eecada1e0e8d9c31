//! `vmm doctor`: what this host can do, measured and tried, not guessed from version numbers.

mod boot;
mod child;
mod disk;
mod event_loop;
mod kvm;
mod memory;
mod network;
mod report;
mod ring0;
mod sandbox;

use std::path::{Path, PathBuf};

use clap::Args;

use report::Report;

/// Say what this host can do, and what is missing
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Write one line of JSON instead of text
    #[arg(long)]
    json: bool,
    /// Say also how this disk would be served, and why
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
}

/// Tries everything, prints what was found and gives the exit status of the process: 0 when
/// virtual machines can run here.
pub fn run(arguments: &DoctorArgs) -> u8 {
    let report = examine(arguments.disk.as_deref());
    let text = if arguments.json { report.to_json() } else { report.to_text() };
    crate::cli::print(text.as_bytes());
    report.exit_code()
}

fn examine(disk: Option<&Path>) -> Report {
    let speed = kvm::speed();
    let mut report = Report::new(speed);
    report.extend(kvm::checks(speed));
    report.extend(event_loop::checks());
    report.extend(memory::checks());
    report.extend(network::checks());
    report.extend(sandbox::checks());
    report.extend(boot::checks());
    if let Some(disk) = disk {
        report.extend(disk::checks(disk));
    }
    report
}
