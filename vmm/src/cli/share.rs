//! `vmm share` and `vmm unshare`: directories of a machine that runs.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

use super::run::report_error;
use crate::control::{Client, ClientError, Request};
use crate::error::Report;
use crate::names::ControlOf;

const EXAMPLES: &str = "\
Examples:
  vmm run bzImage --initrd initrd.img --share tag=host --control vm.sock
  mount -t virtiofs host /mnt                 in the guest; there is nothing in it yet
  vmm share vm.sock /srv/src --ro             the guest finds it as /mnt/src
  vmm unshare vm.sock src                     what the guest has open in it is stale";

/// Share one more directory with a guest that runs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ShareArgs {
    /// The machine: its name, or its control socket
    #[arg(value_name = "MACHINE", value_parser = OsStringValueParser::new().try_map(|text| ControlOf::parse(&text)))]
    machine: ControlOf,
    /// The directory
    path: PathBuf,
    /// What the guest finds it by [default: the directory's own name]
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// The guest cannot change anything
    #[arg(long = "ro")]
    read_only: bool,
    /// The share that it appears in, where a machine has several
    #[arg(long)]
    tag: Option<String>,
}

/// Share a directory no more
#[derive(Debug, Args)]
pub(super) struct UnshareArgs {
    /// The machine: its name, or its control socket
    #[arg(value_name = "MACHINE", value_parser = OsStringValueParser::new().try_map(|text| ControlOf::parse(&text)))]
    machine: ControlOf,
    /// What the guest finds it by
    name: String,
    /// The share that it is in, where a machine has several
    #[arg(long)]
    tag: Option<String>,
}

/// Gives the exit status of the process.
pub(super) fn share(arguments: ShareArgs) -> u8 {
    let ShareArgs { machine, path, name, read_only, tag } = arguments;
    // The machine has a working directory of its own.
    let path = match std::fs::canonicalize(&path) {
        Ok(path) => path,
        Err(source) => {
            return report_error(&Report::new(&ShareError::Path { path, source }), false);
        }
    };
    let Some(name) = name.or_else(|| Some(path.file_name()?.to_str()?.to_owned())) else {
        return report_error(&Report::new(&ShareError::Nameless { path }), false);
    };
    ask(&machine.0, &Request::Share { id: tag, path, name, read_only })
}

/// Gives the exit status of the process.
pub(super) fn unshare(arguments: UnshareArgs) -> u8 {
    let UnshareArgs { machine, name, tag } = arguments;
    ask(&machine.0, &Request::Unshare { id: tag, name })
}

fn ask(socket: &Path, request: &Request) -> u8 {
    let answer = Client::connect(socket).and_then(|mut client| client.ask(request));
    answer.map_or_else(|error: ClientError| report_error(&Report::new(&error), false), |_| 0)
}

/// Why a directory cannot be named to a machine.
#[derive(Debug, thiserror::Error)]
enum ShareError {
    #[error("cannot share the directory `{}`", path.display())]
    Path {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{}` has no name that a guest could find it by", path.display())]
    Nameless { path: PathBuf },
}

impl crate::error::Hint for ShareError {
    fn hint(&self) -> Option<std::borrow::Cow<'static, str>> {
        Some(match self {
            Self::Path { .. } => "check the path".into(),
            Self::Nameless { .. } => "give it one: --as NAME".into(),
        })
    }
}
