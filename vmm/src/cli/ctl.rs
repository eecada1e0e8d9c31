//! `vmm ctl`: asks something of a machine that runs.

use std::fmt::Write as _;
use std::str::FromStr;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::run::report_error;
use crate::config::{ByteCount, MemorySize, key_value};
use crate::control::{Answer, Client, ClientError, Event, LinkTo, Request, Status, Traffic};
use crate::error::Report;
use crate::names::ControlOf;

const EXAMPLES: &str = "\
Examples:
  vmm run vmlinux --root path=root.img --control vm.sock    a machine that can be controlled
  vmm ctl vm.sock status                                    its devices and their processes
  vmm ctl vm.sock power-button                              ask the guest to shut down
  vmm ctl vm.sock disk-resize disk0 20G
  vmm ctl vm.sock rate-limit net0 bytes=10M,rx
  vmm ctl vm.sock net-link lan down                         a network that was given id=lan
  vmm ctl vm.sock events --json                             one line of JSON for each event

The exit status is 0 when the machine did it, else 35.";

/// Control a machine that runs with --control
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CtlArgs {
    /// The machine: its name, or its control socket
    #[arg(value_name = "MACHINE", value_parser = OsStringValueParser::new().try_map(|text| ControlOf::parse(&text)))]
    machine: ControlOf,
    #[command(subcommand)]
    command: CtlCommand,
    /// Answer with one line of JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum CtlCommand {
    /// Say how the machine is: state, devices, processes
    Status,
    /// Stand still: no CPU runs, and no device touches the guest
    Pause,
    /// Go on after a pause
    Resume,
    /// End the machine in order, with exit status 36, and wait for its end
    Stop,
    /// End it as by a reset of the guest, with exit status 32, and wait for its end
    Reset,
    /// Press the guest's power button
    PowerButton,
    /// Show what happens, until the machine ends
    Events,
    /// Show counters and latencies as `OpenMetrics` text
    Metrics,
    /// Give a disk another size, and its file if it has to grow
    DiskResize {
        /// The disk: disk0, or its own id
        id: String,
        /// Its new size: 512 (MiB), 512M, 6G
        size: MemorySize,
    },
    /// Plug a network's cable in or out
    NetLink {
        /// The network: net0, or its own id
        id: String,
        /// What to do
        link: LinkTo,
    },
    /// Limit what a device does each second
    RateLimit {
        /// The device: disk0, net0, or its own id
        id: String,
        /// bytes=SIZE,ops=N and for networks rx or tx; what is not named is not limited; or none
        #[arg(value_name = "LIST")]
        limits: Limits,
    },
    /// Tell a console that its window has another size
    ConsoleResize {
        /// The console: console0
        id: String,
        /// Characters of a line
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        columns: u16,
        /// Lines
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        rows: u16,
    },
    /// Have the guest give up this much memory, 0 for none
    Balloon {
        /// What it shall be without: 0, 512 (MiB), 512M, 6G
        size: MemorySize,
    },
}

/// `bytes=10M,ops=1000,rx`, or `none`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Limits {
    bytes: Option<ByteCount>,
    ops: Option<u64>,
    #[serde(default)]
    rx: bool,
    #[serde(default)]
    tx: bool,
}

impl FromStr for Limits {
    type Err = key_value::Error;

    fn from_str(text: &str) -> Result<Self, key_value::Error> {
        if text == "none" { Ok(Self::default()) } else { key_value::from_str(text) }
    }
}

impl CtlCommand {
    fn request(self) -> Request {
        match self {
            Self::Status => Request::Status,
            Self::Pause => Request::Pause,
            Self::Resume => Request::Resume,
            Self::Stop => Request::Stop,
            Self::Reset => Request::Reset,
            Self::PowerButton => Request::PowerButton,
            Self::Events => Request::Events,
            Self::Metrics => Request::Metrics,
            Self::DiskResize { id, size } => Request::DiskResize { id, bytes: size.bytes() },
            Self::NetLink { id, link } => Request::NetLink { id, link },
            Self::RateLimit { id, limits } => Request::RateLimit {
                id,
                bytes: limits.bytes.map(ByteCount::get),
                ops: limits.ops,
                traffic: match (limits.rx, limits.tx) {
                    (true, false) => Traffic::Rx,
                    (false, true) => Traffic::Tx,
                    _ => Traffic::Both,
                },
            },
            Self::ConsoleResize { id, columns, rows } => {
                Request::ConsoleResize { id, columns, rows }
            }
            Self::Balloon { size } => Request::Balloon { bytes: size.bytes() },
        }
    }
}

/// Does what the arguments say and gives the exit status of the process.
pub(super) fn run(arguments: CtlArgs) -> u8 {
    let json = arguments.json;
    match ask(arguments) {
        Ok(status) => status,
        Err(error) => report_error(&Report::new(&error), json),
    }
}

fn ask(arguments: CtlArgs) -> Result<u8, ClientError> {
    let CtlArgs { machine, command, json } = arguments;
    let request = command.request();
    let mut client = Client::connect(&machine.0)?;
    let answer = client.ask(&request)?;
    match request {
        Request::Events => return show_events(&mut client, json),
        // Whoever starts it anew needs its files.
        Request::Stop | Request::Reset => client.wait_for_end()?,
        _ => {}
    }
    Ok(match answer {
        Answer::Done if json => print_json(&Done { ok: true }),
        Answer::Done => 0,
        Answer::Status(status) if json => print_json(&*status),
        Answer::Status(status) => super::print(describe(&status).as_bytes()),
        // It has a format of its own.
        Answer::Metrics(text) => super::print(text.as_bytes()),
    })
}

/// What is said where there is nothing else to say.
#[derive(Serialize)]
struct Done {
    ok: bool,
}

fn show_events(client: &mut Client, json: bool) -> Result<u8, ClientError> {
    while let Some(event) = client.event()? {
        let Event { at, kind } = &event;
        let status = if json {
            print_json(&event)
        } else {
            super::print(format!("{at:10.3} {kind}\n").as_bytes())
        };
        if status != 0 {
            return Ok(status);
        }
    }
    Ok(0)
}

fn print_json(value: &impl Serialize) -> u8 {
    match serde_json::to_string(value) {
        Ok(line) => super::print(format!("{line}\n").as_bytes()),
        Err(error) => report_error(&Report::of(&error), false),
    }
}

fn describe(status: &Status) -> String {
    let Status { state, uptime, pid, vmm, vcpus, memory, devices } = status;
    let memory = MemorySize::from_bytes(*memory);
    let mut text = format!(
        "{state} for {uptime:.1} s: process {pid}, vmm {vmm}, {vcpus} CPUs, {memory} of memory\n"
    );
    for device in devices {
        let own = device.user_id.as_ref().map_or(String::new(), |id| format!(" `{id}`"));
        let pid = device.pid.map_or(String::new(), |pid| format!(" {pid}"));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:10}{own} {}: {}{pid}, {} restarts",
            device.id, device.name, device.service, device.restarts
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_a_list_or_none() {
        let limits: Limits = "bytes=10M,ops=1000,rx".parse().expect("a list");
        assert_eq!(limits.bytes.map(ByteCount::get), Some(10 << 20));
        assert_eq!((limits.ops, limits.rx, limits.tx), (Some(1000), true, false));
        assert_eq!("none".parse(), Ok(Limits::default()));
        for wrong in ["", "bytes", "bytes=-1", "ops=x", "up=1"] {
            assert!(wrong.parse::<Limits>().is_err(), "{wrong}");
        }
    }
}
