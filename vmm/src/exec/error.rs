//! Why a command did not run in a guest.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use agent_client::CallError;

use crate::config::ShareValueError;
use crate::error::Hint;
use crate::names::NameError;

/// The statuses that are not the command's: as timeout(1) and shells have them, and two more.
pub mod status {
    /// The guest powered off, restarted or crashed.
    pub const GUEST_DOWN: u8 = 122;
    /// The guest's kernel panicked.
    pub const GUEST_PANIC: u8 = 123;
    /// The time was over.
    pub const TIMED_OUT: u8 = 124;
    /// Anything else went wrong here.
    pub const FAILED: u8 = 125;
}

/// Why there is no exit status of the command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No kernel was named, and the host has none.
    #[error("there is no kernel to run: none under {} can be read", .0.display())]
    NoKernel(PathBuf),
    /// This `vmm` was built without an agent.
    #[error("there is no agent for the guest in this build")]
    NoAgent,
    /// A file that goes into the guest.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The root cannot be had with this kernel.
    #[error("the guest's kernel has no module `{name}`")]
    NoModule {
        /// The module.
        name: &'static str,
    },
    /// The machine cannot be called so.
    #[error("cannot name the machine")]
    Name(#[from] NameError),
    /// There is nothing on an image that could be a root.
    #[error("there is no file system on `{}`", path.display())]
    NoFileSystem {
        /// The image.
        path: PathBuf,
    },
    /// A directory cannot be shared.
    #[error("cannot share a directory")]
    Share(#[from] ShareValueError),
    /// The guest could not make its root.
    #[error("the guest says: {0}")]
    Guest(String),
    /// The options cannot be put together.
    #[error("cannot write the machine's description")]
    Describe(#[from] toml::ser::Error),
    /// The agent could not be talked to.
    #[error("cannot run the command in the guest")]
    Call(#[from] CallError),
    /// A file could not be copied.
    #[error("cannot copy")]
    Copy(#[from] agent_client::CopyError),
    /// A port leads nowhere.
    #[error("cannot forward port {port}")]
    Forward {
        /// The port, of the side that listens.
        port: u16,
        /// Why.
        #[source]
        source: agent_client::ForwardError,
    },
    /// It could not be started, for a reason that is not the program.
    #[error("cannot start the command: {0}")]
    NotStarted(String),
    /// The executor cannot be made.
    #[error("cannot start the event loop")]
    Executor(#[from] executor::Error),
    /// The host refused something.
    #[error("cannot {doing}")]
    Host {
        /// What was being done, as an infinitive.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn host(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Host { doing, source }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::NoKernel(_) => Some(
                "name one with --kernel; where /boot/vmlinuz* is for root alone, `sudo chmod 644` \
                 makes it readable, or copy it"
                    .into(),
            ),
            Self::NoAgent => Some(
                "release builds have one inside; else put `vmm-agent` beside `vmm` or name it in \
                 VMM_AGENT"
                    .into(),
            ),
            Self::NoModule { name: "virtiofs" | "overlay" } => Some(
                "without it the guest has no directories of this host; --minimal has the command and its \
                 libraries alone"
                    .into(),
            ),
            Self::NoModule { .. } => {
                Some("another --kernel may have it, or --modules another version of it".into())
            }
            Self::NoFileSystem { .. } => Some(
                "an image is a file system of ext4, xfs, btrfs, squashfs or erofs, or a disk with a GUID \
                 partition table that has one"
                    .into(),
            ),
            Self::Name(error) => error.hint(),
            _ => None,
        }
    }

    fn exit_code(&self) -> u8 {
        status::FAILED
    }
}
