//! `vmm list`: machines that run.

use std::fmt::Write as _;

use clap::Args;

use crate::error::Report;
use crate::names;
use crate::outcome::BAD_INPUT;

const EXAMPLES: &str = "\
Examples:
  vmm run --name web bzImage --root path=root.img
  vmm list
  vmm shell web
  vmm ctl web stop";

/// List machines that run and have a name
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArgs {
    /// As one line of JSON
    #[arg(long)]
    json: bool,
}

/// Lists this user's machines, and gives the exit status of the process.
pub(super) fn run(arguments: &ListArgs) -> u8 {
    let machines = match names::running() {
        Ok(machines) => machines,
        Err(error) => {
            super::run::say(&Report::of(&error).to_string());
            return BAD_INPUT;
        }
    };
    let mut text = String::new();
    if arguments.json {
        let all: Vec<_> = machines
            .iter()
            .map(|(name, sockets)| serde_json::json!({ "name": name, "pid": sockets.pid,
                "vsock": sockets.vsock, "agent_secret": sockets.secret, "control": sockets.control }))
            .collect();
        text = format!("{}\n", serde_json::Value::from(all));
    } else {
        for (name, sockets) in &machines {
            // A string grows without an error.
            let _ = writeln!(text, "{name:20} {:>8}  {}", sockets.pid, sockets.control.display());
        }
    }
    super::print(text.as_bytes())
}
