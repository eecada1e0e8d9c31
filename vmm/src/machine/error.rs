//! Why a machine could not be built or carried on.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use devices::bus::BusError;
use devices::interrupt::InterruptError;
use devices::pci::PciError;
use devices::virtio::blk::BlkError;
use devices::virtio::console::ConsoleError;
use devices::virtio::net::NetError;
use devices::virtio::pci::TransportError;
use devices::virtio::pmem::PmemError;
use devices::virtio::queue::InflightError;
use devices::virtio::vhost_user::remote::RemoteError;

use super::host_sockets::HostSocketError;
use super::{BootFailure, RamError, UserNetError};
use crate::control::SocketError;
use crate::error::Hint;
use crate::kvm::KvmError;
use crate::outcome;
use crate::pstore::PstoreError;
use crate::serial_port;
use crate::warden::WardenError;

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KVM cannot do it.
    #[error("cannot create the virtual machine")]
    Kvm(#[from] KvmError),
    /// There is no RAM for it.
    #[error("cannot give the guest its memory")]
    Ram(#[from] RamError),
    /// There is nothing to start.
    #[error("cannot boot the guest")]
    Boot(#[from] BootFailure),
    /// The trace cannot be written.
    #[error("cannot write the trace {path}")]
    Trace {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A disk cannot be used.
    #[error("cannot use a disk")]
    Disk(#[source] BlkError),
    /// A network cannot be used.
    #[error("cannot use a network")]
    Net(#[from] NetError),
    /// The sockets of a vsock cannot be had.
    #[error("cannot connect guest and host by sockets")]
    HostSockets(#[from] HostSocketError),
    /// A user-mode network cannot be had.
    #[error("cannot start a user-mode network")]
    UserNet(#[from] UserNetError),
    /// A directory cannot be shared.
    #[error("cannot share `{}`", path.display())]
    Share {
        /// The directory.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The back end of another program cannot be used.
    #[error("cannot use a vhost-user device")]
    Remote(#[source] RemoteError),
    /// A file cannot be persistent memory.
    #[error("cannot use persistent memory")]
    Pmem(#[source] PmemError),
    /// A file cannot keep the kernel's last words.
    #[error("cannot use the memory of --pstore")]
    Pstore(#[source] PstoreError),
    /// The host end of the serial port cannot be used.
    #[error("cannot use the serial port")]
    Serial(#[from] serial_port::Error),
    /// The host's end of a console cannot be opened.
    #[error("cannot use a console")]
    ConsoleEnd(#[source] serial_port::Error),
    /// A console cannot be made.
    #[error("cannot make a console")]
    Console(#[from] ConsoleError),
    /// A front end is served one device, and these are two.
    #[error("a console without a name and ports with names are two devices")]
    TwoConsoles,
    /// One of several devices cannot be served.
    #[error("cannot serve the device at `{}`", socket.display())]
    Served {
        /// Where it would be served.
        socket: PathBuf,
        /// Why not.
        #[source]
        source: Box<Self>,
    },
    /// The host's end of the debug console cannot be opened.
    #[error("cannot use the debug console")]
    Debugcon(#[source] serial_port::Error),
    /// The control socket cannot be made.
    #[error("cannot be controlled")]
    Control(#[from] SocketError),
    /// The firmware tables cannot describe it.
    #[error("cannot describe the machine to the guest")]
    Acpi(#[from] arch::x86_64::acpi::AcpiError),
    /// Guest addresses have run out.
    #[error("cannot lay out the guest's addresses")]
    Layout(#[from] arch::x86_64::layout::LayoutError),
    /// Two devices want the same address, which is a fault of this program.
    #[error("cannot put a device on its bus")]
    Bus(#[from] BusError),
    /// The PCI bus is full.
    #[error("cannot attach a PCI device")]
    Pci(#[from] PciError),
    /// A virtio device cannot be made.
    #[error("cannot make a virtio device")]
    Transport(#[from] TransportError),
    /// An interrupt cannot be made.
    #[error("cannot make an interrupt")]
    Interrupt(#[from] InterruptError),
    /// The sandbox or the process that makes sandboxes cannot be had.
    #[error("cannot run devices in sandboxes")]
    Warden(#[from] WardenError),
    /// A device's process could not be made.
    #[error("cannot run devices in sandboxes: {0}")]
    Sandbox(String),
    /// A device's process was gone before it had begun.
    #[error("the process of a device ended before it had begun")]
    NeverBegan,
    /// The process that makes sandboxes is gone, and the devices with it.
    #[error("the process that watches over the devices died")]
    WardenDied,
    /// The memory for a device's in-flight record cannot be had.
    #[error("cannot make the in-flight record of a device")]
    Inflight(#[from] InflightError),
    /// The executor cannot be made.
    #[error("cannot start the event loop")]
    Executor(#[from] executor::Error),
    /// The secret of the guest's agent cannot be had.
    #[error("cannot use `{}` as the secret of the guest's agent", path.display())]
    AgentSecret {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The guest cannot be told who it is.
    #[error("cannot describe the machine to the guest")]
    Smbios(#[from] arch::x86_64::smbios::SmbiosError),
    /// The host refused a thread, a descriptor or a signal mask.
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
    pub(super) fn host(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Host { doing, source }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Kvm(error) => error.hint(),
            Self::Served { source, .. } => source.hint(),
            Self::Ram(error) => error.hint(),
            Self::Boot(error) => error.hint(),
            Self::HostSockets(error) => error.hint(),
            Self::Serial(error) | Self::ConsoleEnd(error) | Self::Debugcon(error) => error.hint(),
            Self::UserNet(error) => error.hint().map(Into::into),
            Self::Control(error) => error.hint(),
            Self::Warden(error) => error.hint(),
            Self::Remote(RemoteError::Connect { .. }) => {
                Some("start the program that serves it first; it makes the socket".into())
            }
            Self::TwoConsoles => {
                Some("serve each from a `vmm device console` and a socket of its own".into())
            }
            Self::Sandbox(_) => Some(
                "`vmm doctor` says what the sandbox lacks; `--single-process` runs without one"
                    .into(),
            ),
            _ => None,
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Served { source, .. } => source.exit_code(),
            // These are faults of this program, not of what it was given.
            Self::Bus(_) | Self::Transport(_) | Self::Acpi(_) | Self::WardenDied => outcome::CRASH,
            _ => outcome::BAD_INPUT,
        }
    }
}
