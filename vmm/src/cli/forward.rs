//! `vmm forward`: ports between this host and a guest that runs.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

use crate::error::Report;
use crate::exec::{Expose, Forwarding, Ports, Publish, Wanted, forward};
use crate::names::VsockOf;

/// Forward ports between this host and a virtual machine that runs
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").args(["publish", "expose", "all"]).required(true).multiple(true))]
#[command(after_help = "\
Examples:
  vmm forward vm.sock -p 8000                localhost:8000 here is localhost:8000 of the guest
  vmm forward vm.sock -p 8080:80 --expose 5432
  vmm forward vm.sock --all                  whatever programs of the guest listen on, as it comes and goes

No network device is needed. It ends with a signal, or with the guest.")]
pub(super) struct ForwardArgs {
    /// The machine: its name, or its --vsock socket
    #[arg(value_name = "MACHINE", value_parser = OsStringValueParser::new().try_map(|text| VsockOf::parse(&text)))]
    machine: VsockOf,

    /// File with the secret of the machine's agent [default: SOCKET.secret]
    #[arg(long, value_name = "FILE")]
    agent_secret: Option<PathBuf>,

    /// Reach a port of the guest's localhost here; may be repeated
    #[arg(short, long, value_name = "[ADDRESS:]PORT[:GUESTPORT]")]
    publish: Vec<Publish>,

    /// Reach a port of this host's localhost on the guest's; may be repeated
    #[arg(long, value_name = "GUESTPORT[:PORT]")]
    expose: Vec<Expose>,

    /// Reach every port from 1024 on that a program of the guest listens on, under its number
    #[arg(long)]
    all: bool,
}

/// Forwards until a signal, and gives the exit status of the process.
pub(super) fn run(arguments: ForwardArgs) -> u8 {
    let ForwardArgs { machine, agent_secret, publish, expose, all } = arguments;
    let secret = agent_secret.unwrap_or(machine.secret);
    let all = if all { Wanted::Yes } else { Wanted::No };
    let forwarding =
        Forwarding { socket: machine.socket, secret, ports: Ports { publish, expose }, all };
    let tell = |what: &str| super::run::say(&format!("vmm: {what}"));
    match forward(forwarding, tell) {
        Ok(()) => 0,
        Err(error) => {
            super::run::say(&Report::new(&error).to_string());
            1
        }
    }
}
