//! `vmm shell`: a shell in a guest that runs.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use agent_client::Command;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

use crate::exec::{Place, Ports, Request, Wanted};
use crate::names::VsockOf;

/// The agent says in SHELL what the user's shell is.
const LOGIN: [&str; 3] = ["/bin/sh", "-c", "exec \"${SHELL:-/bin/sh}\" -l"];

/// Open a shell in a virtual machine that runs
#[derive(Debug, Args)]
#[command(
    after_help = "With a terminal here there is one in the guest; otherwise the shell reads commands."
)]
pub(super) struct ShellArgs {
    /// The machine: its name, or its --vsock socket
    #[arg(value_name = "MACHINE", value_parser = OsStringValueParser::new().try_map(|text| VsockOf::parse(&text)))]
    machine: VsockOf,

    /// File with the secret of the machine's agent [default: SOCKET.secret]
    #[arg(long, value_name = "FILE")]
    agent_secret: Option<PathBuf>,

    /// Variable of its environment; without a value as it is here; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,

    /// Whose shell: NAME, UID, NAME:GROUP or UID:GID of the guest [default: root]
    #[arg(short, long, value_name = "USER", default_value = "", hide_default_value = true)]
    user: String,

    /// Start in this folder of the guest
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true)]
    cwd: OsString,
}

/// Runs the shell and gives its exit status.
pub(super) fn run(arguments: ShellArgs) -> u8 {
    let ShellArgs { machine, agent_secret, env, user, cwd } = arguments;
    let secret = agent_secret.unwrap_or(machine.secret);
    let has_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    super::exec::perform(Request {
        place: Place::Running { socket: machine.socket, secret },
        command: Command {
            argv: LOGIN.map(|word| word.as_bytes().to_vec()).to_vec(),
            env: env.iter().filter_map(super::exec::variable).collect(),
            cwd: cwd.into_vec(),
            user,
            terminal: None,
        },
        terminal: if has_terminal { Wanted::Yes } else { Wanted::No },
        timeout: None,
        idle_timeout: None,
        ports: Ports::default(),
        log: None,
        crashes: None,
    })
}
