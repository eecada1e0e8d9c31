//! `vmm cp`: files into a guest that runs and out of it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;

use crate::error::Report;
use crate::exec::{Files, Local, Progress, Transfer, copy};
use crate::names::VsockOf;
use crate::outcome::BAD_INPUT;

const EXAMPLES: &str = "\
Examples:
  vmm cp vm.sock:/var/log/syslog .           out of the guest whose --vsock is vm.sock
  vmm cp *.deb vm.sock:/root                 into a folder of it
  tar c . | vmm cp - vm.sock:/tmp/all.tar    from standard input

A path of the guest is MACHINE:/PATH, MACHINE being its name or its --vsock socket. Regular files alone are copied, with their permissions;
folders go better with `vmm exec --mount` or through tar.";

/// Copy files into a virtual machine that runs, or out of it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CpArgs {
    /// File with the secret of the machine's agent [default: SOCKET.secret]
    #[arg(long, value_name = "FILE")]
    agent_secret: Option<PathBuf>,

    /// Say how far it is even if standard error is no terminal
    #[arg(long, conflicts_with = "no_progress")]
    progress: bool,

    /// Do not say how far it is
    #[arg(long)]
    no_progress: bool,

    /// Files here or in the guest; `-` is standard input
    #[arg(required = true, value_name = "FROM")]
    from: Vec<OsString>,

    /// A file or a folder on the other side; `-` is standard output
    #[arg(required = true, value_name = "TO")]
    to: OsString,
}

/// What makes no sense together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum UsageError {
    #[error("one side has to be in a guest: MACHINE:/PATH")]
    NoGuest,
    #[error("one side has to be on this host")]
    TwoGuests,
    #[error("all files have to be on the same side, in the same guest")]
    Mixed,
}

/// A file on either side.
enum End {
    Here(Local),
    There(PathBuf, PathBuf),
}

/// Copies, and gives the exit status of the process.
pub(super) fn run(arguments: CpArgs) -> u8 {
    let (socket, files) = match plan(&arguments.from, &arguments.to) {
        Ok(plan) => plan,
        Err(error) => {
            super::run::say(&Report::of(&error).to_string());
            return BAD_INPUT;
        }
    };
    let VsockOf { socket, secret, .. } = match VsockOf::parse(socket.as_os_str()) {
        Ok(machine) => machine,
        Err(error) => {
            super::run::say(&Report::new(&error).to_string());
            return BAD_INPUT;
        }
    };
    let secret = arguments.agent_secret.unwrap_or(secret);
    let progress = match (arguments.progress, arguments.no_progress) {
        (true, _) => Progress::Always,
        (_, true) => Progress::Never,
        _ => Progress::OnTerminal,
    };
    match copy(Transfer { socket, secret, files, progress }) {
        Ok(()) => 0,
        Err(error) => {
            super::run::say(&Report::new(&error).to_string());
            1
        }
    }
}

fn plan(from: &[OsString], to: &OsStr) -> Result<(PathBuf, Files), UsageError> {
    let mut local = Vec::new();
    let mut remote = Vec::new();
    let mut sockets = Vec::new();
    for end in from.iter().map(|text| end(text)) {
        match end {
            End::Here(file) => local.push(file),
            End::There(socket, path) => {
                sockets.push(socket);
                remote.push(path);
            }
        }
    }
    let files = match (end(to), local.is_empty(), remote.is_empty()) {
        (_, false, false) => return Err(UsageError::Mixed),
        (End::There(socket, path), false, _) => {
            sockets.push(socket);
            Files::In(local, path)
        }
        (End::There(..), true, _) => return Err(UsageError::TwoGuests),
        (End::Here(file), true, _) => Files::Out(remote, file),
        (End::Here(_), false, _) => return Err(UsageError::NoGuest),
    };
    sockets.dedup();
    match <[PathBuf; 1]>::try_from(sockets) {
        Ok([socket]) => Ok((socket, files)),
        Err(_) => Err(UsageError::Mixed),
    }
}

/// `MACHINE:/PATH` is in a guest, everything else is here.
fn end(text: &OsStr) -> End {
    let bytes = text.as_bytes();
    match bytes.windows(2).position(|pair| pair == b":/") {
        Some(at) if at > 0 => {
            let path = |bytes| PathBuf::from(OsStr::from_bytes(bytes));
            End::There(path(&bytes[..at]), path(&bytes[at + 1..]))
        }
        _ if bytes == b"-" => End::Here(Local::Standard),
        _ => End::Here(Local::Path(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Result<(PathBuf, Files), UsageError> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let (to, from) = words.split_last().unwrap();
        plan(from, to)
    }

    #[test]
    fn one_side_is_a_guest() {
        let here = |path: &str| Local::Path(path.into());
        let files = Files::In(vec![here("a"), Local::Standard], "/tmp".into());
        assert_eq!(of(&["a", "-", "run/vm.sock:/tmp"]), Ok(("run/vm.sock".into(), files)));
        let files = Files::Out(vec!["/a".into(), "/b".into()], here("."));
        assert_eq!(of(&["vm:/a", "vm:/b", "."]), Ok(("vm".into(), files)));
        assert_eq!(of(&["a", "b:c"]), Err(UsageError::NoGuest));
        assert_eq!(of(&["vm:/a", "vm:/b"]), Err(UsageError::TwoGuests));
        assert_eq!(of(&["vm:/a", "b", "c"]), Err(UsageError::Mixed));
        assert_eq!(of(&["vm:/a", "wm:/b", "c"]), Err(UsageError::Mixed));
    }
}
