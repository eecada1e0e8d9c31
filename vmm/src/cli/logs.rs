//! `vmm logs`: what a guest logs.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

use crate::config::ByteCount;
use crate::error::Report;
use crate::logs::{self, Format, Log, Request, RotatingFile, Sink};
use crate::names::VsockOf;
use crate::outcome::BAD_INPUT;

/// What a file of logs may have before it becomes an older one.
pub(super) const FILE_BYTES: u64 = 1 << 20;

/// Show or keep what a virtual machine that runs logs
#[derive(Debug, Args)]
#[command(after_help = "\
Programs of the guest log to /dev/log and /dev/kmsg, and the kernel's own log is there from its first line. The
guest's agent hands everything over once, to whoever listens; it ends with a signal.")]
pub(super) struct LogsArgs {
    /// The machine: its name, or its --vsock socket
    #[arg(value_name = "MACHINE", value_parser = OsStringValueParser::new().try_map(|text| VsockOf::parse(&text)))]
    machine: VsockOf,

    /// File with the secret of the machine's agent [default: SOCKET.secret]
    #[arg(long, value_name = "FILE")]
    agent_secret: Option<PathBuf>,

    /// What lines are marked with [default: its name, or that of its socket without the ending]
    #[arg(long, value_name = "TEXT")]
    tag: Option<String>,

    /// How lines look
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,

    /// Append to a file instead of standard output; FILE.1 to FILE.5 are older
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// How large a file may become
    #[arg(long, value_name = "SIZE", default_value = "1M", requires = "file")]
    file_size: ByteCount,

    /// Send to this host's syslog instead, as RFC 3164
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, default_missing_value = "/dev/log",
          require_equals = true, conflicts_with_all = ["file", "format"])]
    syslog: Option<PathBuf>,
}

/// Takes logs until a signal, and gives the exit status of the process.
pub(super) fn run(arguments: LogsArgs) -> u8 {
    let VsockOf { socket, secret, .. } = arguments.machine.clone();
    let secret = arguments.agent_secret.clone().unwrap_or(secret);
    let log = match log(arguments) {
        Ok(log) => log,
        Err((what, error)) => {
            super::run::say(&format!("error: cannot open {what}: {error}"));
            return BAD_INPUT;
        }
    };
    match logs::collect(Request { socket, secret, log }) {
        Ok(()) => 0,
        Err(error) => {
            super::run::say(&Report::new(&error).to_string());
            1
        }
    }
}

fn log(arguments: LogsArgs) -> Result<Log, (String, io::Error)> {
    let LogsArgs { machine, tag, format, file, file_size, syslog, .. } = arguments;
    // A tag is one word of a line.
    let tag: String = tag
        .unwrap_or(machine.name)
        .chars()
        .map(|letter| if letter.is_ascii_graphic() { letter } else { '_' })
        .collect();
    let (sink, format) = match (file, syslog) {
        (Some(path), _) => {
            let file = RotatingFile::open(&path, file_size.get());
            (file.map(Sink::File).map_err(|error| (path.display().to_string(), error))?, format)
        }
        (None, Some(path)) => {
            let socket = UnixDatagram::unbound().and_then(|socket| {
                socket.connect(&path)?;
                Ok(socket)
            });
            let socket = socket.map_err(|error| (path.display().to_string(), error))?;
            (Sink::Syslog(socket), Format::Rfc3164)
        }
        (None, None) => (Sink::Output, format),
    };
    Ok(Log { tag, format, sink })
}
