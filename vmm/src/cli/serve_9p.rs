//! `vmm serve-9p`: from arguments to a server.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Args;
use fileserver::Access;
use p9::Acl;

use super::run::report_error;
use crate::config::OwnerMap;
use crate::error::Report;
use crate::serve_9p::{self, Config, Listen};

const EXAMPLES: &str = "\
Examples:
  vmm serve-9p --root /srv/src --read-only --socket src.sock
  mount -t 9p -o trans=unix,version=9p2000.L,msize=524288 src.sock /mnt     Linux, as root
  vmm serve-9p --root /srv/src --socket vm.sock_564     for the guest with --vsock path=vm.sock
  vmm serve-9p --root /srv/src --vsock 564 --accept-cid 3     for a guest of another machine's vhost-vsock

It ends with status 0 when the only client of --fd has gone, with 128+N after signal N.";

/// Serve a directory over 9P2000.L
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve9pArgs {
    /// The directory
    #[arg(long, value_name = "DIR")]
    root: PathBuf,

    /// Clients cannot change anything
    #[arg(long)]
    read_only: bool,

    /// Clients get at POSIX access control lists
    #[arg(long)]
    acl: bool,

    /// The longest message that is agreed to, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = Config::MOST_MSIZE,
          value_parser = clap::value_parser!(u32).range(4096..=Config::MOST_MSIZE as i64))]
    msize: u32,

    /// Users: HOST:CLIENT[:COUNT], joined by +, or `same`; without maps all is the client's root's
    #[arg(long, value_name = "MAP", requires = "gid_map")]
    uid_map: Option<OwnerMap>,

    /// Groups, in the same way
    #[arg(long, value_name = "MAP", requires = "uid_map")]
    gid_map: Option<OwnerMap>,

    #[command(flatten)]
    listen: ListenArgs,

    /// The context id of the only guest that is let in
    #[arg(long, value_name = "N", requires = "vsock", conflicts_with_all = ["socket", "fd"])]
    accept_cid: Option<u32>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ListenArgs {
    /// Listen on a Unix socket, for the owner and root alone
    #[arg(long, value_name = "PATH", alias = "unix")]
    socket: Option<PathBuf>,

    /// Listen on a port of this host's vsock, for the guest of --accept-cid
    #[arg(long, value_name = "PORT", requires = "accept_cid")]
    vsock: Option<u32>,

    /// Take an inherited descriptor: a socket that listens, or one client
    #[arg(long, value_name = "N")]
    fd: Option<RawFd>,
}

/// Serves and gives the exit status of the process.
pub(super) fn run(arguments: Serve9pArgs) -> u8 {
    let ListenArgs { socket, vsock, fd } = arguments.listen;
    let listen = match (socket, vsock.zip(arguments.accept_cid), fd) {
        (Some(path), ..) => Listen::Path(path),
        (None, Some((port, cid)), _) => Listen::Vsock { port, cid },
        (None, None, Some(number)) => Listen::Descriptor(number),
        (None, None, None) => unreachable!("one of them is required"),
    };
    let config = Config {
        root: arguments.root,
        access: if arguments.read_only { Access::ReadOnly } else { Access::ReadWrite },
        acl: if arguments.acl { Acl::On } else { Acl::Off },
        msize: arguments.msize,
        ids: OwnerMap::ids(arguments.uid_map.as_ref(), arguments.gid_map.as_ref()),
        listen,
    };
    serve_9p::run(&config).unwrap_or_else(|error| report_error(&Report::new(&error), false))
}
