//! `vmm exec`: from arguments to a request.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use agent_client::Command;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use proto::mounts::Access;

use crate::config::MachineOptions;
use crate::error::{Hint, Report};
use crate::exec::{
    self, Expose, Place, Ports, Publish, Request, Root, SharedFolder, Time, Wanted, Writes,
};
use crate::logs::{Format, Log, RotatingFile, Sink};
use crate::names::VsockOf;

const EXAMPLES: &str = "\
Examples:
  vmm exec -- uname -a                       in a machine of its own, with the host's kernel and files
  vmm exec --kernel bzImage --timeout 60 -- ./test.sh
  vmm exec --mount .:/src --image debian.img -- make -C /src check
  vmm exec --in vm.sock -- cat /proc/meminfo in a machine that runs, whose --vsock is vm.sock

The exit status is the command's; 122 when the guest went down, 123 when its kernel panicked, 124 when
the time was over, 125 when anything else failed, 126 when the command cannot be executed, 127 when
it is not there.";

const HEADING: &str = "Command options";

/// Run a command in a virtual machine
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("named_root").args(["image", "rootfs"]))]
#[allow(clippy::struct_excessive_bools)] // each is a flag
pub(super) struct ExecArgs {
    #[command(flatten)]
    machine: MachineOptions,

    /// Read options from a TOML file; flags win over it, lists append to it
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    config: Vec<PathBuf>,

    /// Boot with a file system or disk image as the root; what is written is thrown away
    #[arg(long, value_name = "FILE", conflicts_with_all = ["root", "rootfs", "minimal"],
          help_heading = HEADING)]
    image: Option<PathBuf>,

    /// Boot with a directory as the root; what is written is thrown away [default: /]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["root", "minimal"],
          help_heading = HEADING)]
    rootfs: Option<PathBuf>,

    /// Keep what is written to --image or --rootfs
    #[arg(long, requires = "named_root", help_heading = HEADING)]
    write: bool,

    /// Boot with nothing but the command, its libraries and a few tools
    #[arg(long, conflicts_with = "root", help_heading = HEADING)]
    minimal: bool,

    /// Share a directory of this host at a path of the guest; may be repeated
    #[arg(long, value_name = "HOST:GUEST[:ro]", help_heading = HEADING)]
    mount: Vec<Shared>,

    /// Folder with the kernel's modules [default: /lib/modules]
    #[arg(long, value_name = "DIR", help_heading = HEADING)]
    modules: Option<PathBuf>,

    /// Run in a machine that runs instead of a new one: its name, or its --vsock socket
    #[arg(long = "in", value_name = "MACHINE", help_heading = HEADING,
          value_parser = OsStringValueParser::new().try_map(|text| VsockOf::parse(&text)))]
    running: Option<VsockOf>,

    /// Reach a port of the guest's localhost here; may be repeated
    #[arg(long, value_name = "[ADDRESS:]PORT[:GUESTPORT]", help_heading = HEADING)]
    publish: Vec<Publish>,

    /// Reach a port of this host's localhost on the guest's; may be repeated
    #[arg(long, value_name = "GUESTPORT[:PORT]", help_heading = HEADING)]
    expose: Vec<Expose>,

    /// Keep what the guest logs, its kernel too, in a file; FILE.1 to FILE.5 are older
    #[arg(long, value_name = "FILE", conflicts_with = "running", help_heading = HEADING)]
    log: Option<PathBuf>,

    /// Keep crashes of the guest's programs in a folder [default: where `vmm crashes` looks]
    #[arg(long, value_name = "DIR", conflicts_with = "running", help_heading = HEADING)]
    crashes: Option<PathBuf>,

    /// End after so long: 10, 10s, 500ms, 5m, 1h
    #[arg(long, value_name = "TIME", help_heading = HEADING)]
    timeout: Option<Time>,

    /// End when nothing came through for so long
    #[arg(long, value_name = "TIME", help_heading = HEADING)]
    idle_timeout: Option<Time>,

    /// Variable of the command's environment; without a value as it is here; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]", help_heading = HEADING)]
    env: Vec<OsString>,

    /// Run it as this user: NAME, UID, NAME:GROUP or UID:GID
    #[arg(short, long, value_name = "USER", default_value = "", hide_default_value = true,
          help_heading = HEADING)]
    user: String,

    /// Run it in this folder of the guest
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true,
          help_heading = HEADING)]
    cwd: OsString,

    /// Give it a terminal
    #[arg(short, long, help_heading = HEADING)]
    tty: bool,

    /// All that follows is the command, as cargo's `runner` has it
    #[arg(long, help_heading = HEADING)]
    runner: bool,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// `vmm run` has the kernel as its argument; here that place is the command's.
pub(super) fn kernel_as_option(command: clap::Command) -> clap::Command {
    command.mut_arg("kernel", |argument| argument.long("kernel").value_name("FILE"))
}

/// Runs the command and gives the exit status of the process.
pub(super) fn run(mut arguments: ExecArgs) -> u8 {
    let log = arguments.log.take().map(|path| open_log(&path)).transpose();
    let request = match (log, request(arguments)) {
        (Ok(log), Ok(request)) => Request { log, ..request },
        (Err(error), _) => return refuse(&error),
        (_, Err(error)) => return refuse(&error),
    };
    perform(request)
}

/// Runs what was asked for, and gives the exit status of the process.
pub(super) fn perform(request: Request) -> u8 {
    exec::run(request).unwrap_or_else(|error| refuse(&error))
}

fn refuse(error: &dyn Hint) -> u8 {
    super::run::say(&Report::new(error).to_string());
    exec::status::FAILED
}

fn open_log(path: &Path) -> Result<Log, exec::Error> {
    let file = RotatingFile::open(path, super::logs::FILE_BYTES)
        .map_err(|source| exec::Error::Read { path: path.to_owned(), source })?;
    Ok(Log { tag: "guest".into(), format: Format::Plain, sink: Sink::File(file) })
}

fn request(arguments: ExecArgs) -> Result<Request, crate::config::Error> {
    let mut options = MachineOptions::default();
    for file in &arguments.config {
        options = options.overlay(MachineOptions::from_file(file)?);
    }
    let mut options = options.overlay(arguments.machine);
    let place = match arguments.running {
        Some(VsockOf { socket, secret, .. }) => {
            let secret = options.agent_secret.take().unwrap_or(secret);
            Place::Running { socket, secret }
        }
        None => {
            let writes = if arguments.write { Writes::Kept } else { Writes::Discarded };
            let root = match (arguments.image, arguments.rootfs) {
                (Some(path), _) => Root::Image { path: Some(path), writes },
                (None, Some(path)) => Root::Folder { path, writes },
                (None, None) if arguments.minimal => Root::Memory,
                (None, None) if options.root.is_some() => {
                    Root::Image { path: None, writes: Writes::Kept }
                }
                (None, None) => Root::Default,
            };
            let folders = arguments.mount.into_iter().map(|shared| shared.0).collect();
            let options = Box::new(options);
            Place::New { options, modules: arguments.modules, root, folders }
        }
    };
    let mut env: Vec<_> = arguments.env.iter().filter_map(variable).collect();
    if arguments.runner {
        // Those that were named win, and come last.
        env = super::runner::environment().chain(env).collect();
    }
    Ok(Request {
        ports: Ports { publish: arguments.publish, expose: arguments.expose },
        log: None,
        crashes: arguments.crashes,
        place,
        command: Command {
            argv: arguments.command.into_iter().map(OsString::into_vec).collect(),
            env,
            cwd: arguments.cwd.into_vec(),
            user: arguments.user,
            terminal: None,
        },
        terminal: if arguments.tty { Wanted::Yes } else { Wanted::No },
        timeout: arguments.timeout.map(|time| time.0),
        idle_timeout: arguments.idle_timeout.map(|time| time.0),
    })
}

/// `NAME=VALUE`, or `NAME` for the value that it has here, if it has one.
pub(super) fn variable(text: &OsString) -> Option<(Vec<u8>, Vec<u8>)> {
    let bytes = text.as_bytes();
    match bytes.iter().position(|&byte| byte == b'=') {
        Some(at) => Some((bytes[..at].to_vec(), bytes[at + 1..].to_vec())),
        None => std::env::var_os(text).map(|value| (bytes.to_vec(), value.into_vec())),
    }
}

/// `HOST:GUEST` or `HOST:GUEST:ro`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shared(SharedFolder);

/// Not a directory and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is HOST:GUEST or HOST:GUEST:ro, and GUEST begins with a slash")]
struct SharedError;

impl FromStr for Shared {
    type Err = SharedError;

    fn from_str(text: &str) -> Result<Self, SharedError> {
        let (text, access) = match text.strip_suffix(":ro") {
            Some(text) => (text, Access::ReadOnly),
            None => (text, Access::ReadWrite),
        };
        // The host's part may have colons.
        let (host, guest) = text.rsplit_once(':').ok_or(SharedError)?;
        if host.is_empty() || !guest.starts_with('/') {
            return Err(SharedError);
        }
        Ok(Self(SharedFolder { host: host.into(), guest: guest.into(), access }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_directories_have_two_ends() {
        let of = |text: &str| {
            text.parse().map(|Shared(SharedFolder { host, guest, access })| (host, guest, access))
        };
        assert_eq!(of(".:/work"), Ok((".".into(), "/work".into(), Access::ReadWrite)));
        assert_eq!(of("a:b:/c:ro"), Ok(("a:b".into(), "/c".into(), Access::ReadOnly)));
        for text in ["", ":", "a", "a:", "a:b", ":/b", "a:ro", ":ro"] {
            assert_eq!(of(text), Err(SharedError), "{text}");
        }
    }

    #[test]
    fn variables_have_names_and_values() {
        let of = |text: &str| variable(&text.into());
        assert_eq!(of("A=b=c"), Some((b"A".to_vec(), b"b=c".to_vec())));
        assert_eq!(of("A="), Some((b"A".to_vec(), Vec::new())));
        assert_eq!(of("VMM_NO_SUCH_VARIABLE"), None);
    }
}
