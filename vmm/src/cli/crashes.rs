//! `vmm crashes`: programs of guests that crashed.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Subcommand};

use crate::crashes::{self, Crash, Store, StoreError, Taker};
use crate::error::Report;
use crate::names::VsockOf;
use crate::outcome::BAD_INPUT;

const EXAMPLES: &str = "\
Examples:
  vmm crashes list
  vmm crashes show 20261121-150405             the beginning of a name is enough
  minidump-stackwalk \"$(vmm crashes show 20261121-150405 --path)\"
  vmm crashes collect vm.sock                  of a machine that runs, until a signal

`vmm exec` keeps the crashes of its guest by itself.";

/// Show programs of guests that crashed
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CrashesArgs {
    #[command(subcommand)]
    command: Command,

    /// The folder of crashes [default: vmm/crashes in `XDG_STATE_HOME` or ~/.local/state]
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,

    /// Answer with JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List those that are kept, the oldest first
    List,
    /// Say all that is known of one
    Show {
        /// Its name, or the beginning of it
        id: String,
        /// Only where its minidump is
        #[arg(long, conflicts_with = "json")]
        path: bool,
    },
    /// Take those of a machine that runs, until a signal
    Collect {
        /// The machine: its name, or its --vsock socket
        #[arg(value_name = "MACHINE", value_parser = OsStringValueParser::new().try_map(|text| VsockOf::parse(&text)))]
        machine: VsockOf,
        /// File with the secret of the machine's agent [default: SOCKET.secret]
        #[arg(long, value_name = "FILE")]
        agent_secret: Option<PathBuf>,
        /// What the machine is called [default: its name, or that of its socket without the ending]
        #[arg(long, value_name = "TEXT")]
        tag: Option<String>,
    },
}

/// Does it and gives the exit status of the process.
pub(super) fn run(arguments: CrashesArgs) -> u8 {
    let CrashesArgs { command, store, json } = arguments;
    let store = match Store::new(store.as_deref()) {
        Ok(store) => store,
        Err(error) => return refuse(&error),
    };
    let text = match command {
        Command::List => list(&store, json),
        Command::Show { id, path } => show(&store, &id, path, json),
        Command::Collect { machine, agent_secret, tag } => {
            let VsockOf { socket, secret, name } = machine;
            let secret = agent_secret.unwrap_or(secret);
            let taker = Taker { store: Some(store), machine: tag.unwrap_or(name) };
            return match crashes::collect(socket, secret, taker) {
                Ok(()) => 0,
                Err(error) => {
                    super::run::say(&Report::new(&error).to_string());
                    1
                }
            };
        }
    };
    match text {
        Ok(text) => super::print(text.as_bytes()),
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &StoreError) -> u8 {
    super::run::say(&Report::of(error).to_string());
    BAD_INPUT
}

fn list(store: &Store, json: bool) -> Result<String, StoreError> {
    let crashes = store.list()?;
    Ok(if json {
        let all: Vec<_> = crashes.iter().map(|crash| as_json(store, crash)).collect();
        format!("{}\n", serde_json::Value::from(all))
    } else {
        let line = |crash: &Crash| {
            format!("{}  {:8} {}  {}\n", crash.id, crash.signal_name, crash.program, crash.machine)
        };
        crashes.iter().map(line).collect()
    })
}

fn show(store: &Store, id: &str, path: bool, json: bool) -> Result<String, StoreError> {
    let crash = store.find(id)?;
    let minidump = store.minidump_of(&crash);
    let minidump = minidump.map(|path| path.display().to_string());
    if path {
        let minidump = minidump.ok_or_else(|| StoreError::NoMinidump(crash.id.clone()))?;
        return Ok(format!("{minidump}\n"));
    }
    if json {
        return Ok(format!("{}\n", as_json(store, &crash)));
    }
    let Crash { thread, thread_name, signal, signal_name, code, address, .. } = &crash;
    let rows = [
        ("crash", crash.id.clone()),
        ("time", crash.time.clone()),
        ("machine", crash.machine.clone()),
        ("kernel", crash.kernel.clone()),
        ("program", crash.program.clone()),
        ("command", crash.command.join(" ")),
        ("process", crash.pid.to_string()),
        ("thread", format!("{thread} ({thread_name})")),
        ("signal", format!("{signal_name} ({signal}), code {code}, at {address}")),
        ("minidump", minidump.unwrap_or_else(|| format!("none: {}", crash.problem))),
    ];
    Ok(rows.map(|(name, value)| format!("{name:9} {value}\n")).concat())
}

fn as_json(store: &Store, crash: &Crash) -> serde_json::Value {
    let mut value = serde_json::json!(crash);
    value["minidump"] = serde_json::json!(store.minidump_of(crash));
    value
}
