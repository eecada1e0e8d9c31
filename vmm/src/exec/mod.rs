//! `vmm exec`: one command in a guest, with its streams, signals and exit status.
//!
//! ```text
//!   vmm exec (this process, one thread)
//!     ├── private folder: description, initramfs, secret, sockets
//!     ├── child: vmm run --config ... ── the guest ── agent ── command
//!     │      console, messages ──▶ tails, shown when something goes wrong
//!     └── session over the guest's vsock: start, streams, signals, wait
//! ```
//!
//! The machine is a process of its own, so that nothing of it has to know of commands, and dies
//! with this one. docs/exec.md is for users.

mod agent;
mod error;
mod first_root;
mod folder;
mod kernels;
mod machine;
mod programs;
mod session;

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent_client::{Command, Guest};
use executor::{Config, Executor, KernelFeatures};

pub use error::{Error, status};

use crate::agent_secret;
use crate::config::{ConnectionLimit, GuestCid, MachineOptions, VsockConfig};
use crate::signals::Signals;
use first_root::Contents;
use folder::Folder;

/// Drivers without which there is no agent, and the one that tells of panics.
const MODULES: [&str; 4] =
    ["virtio_pci", "vmw_vsock_virtio_transport", "pvpanic-mmio", "pvpanic-pci"];
/// What the kernel is told: little talk, and an end instead of a wait after a panic.
const KERNEL_WORDS: &str = "quiet panic=-1";

/// What to run, where and for how long.
#[derive(Debug)]
pub struct Request {
    /// The machine; None for one that runs already.
    pub place: Place,
    /// What to run.
    pub command: Command,
    /// Whether it gets a terminal.
    pub terminal: Wanted,
    /// How long all of it may take.
    pub timeout: Option<Duration>,
    /// How long nothing may come through.
    pub idle_timeout: Option<Duration>,
}

/// Whether something was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It was.
    Yes,
    /// It was not.
    No,
}

/// Where to run a command.
#[derive(Debug)]
pub enum Place {
    /// In a machine of its own.
    New {
        /// The machine.
        options: Box<MachineOptions>,
        /// Where to look for the kernel's modules.
        modules: Option<PathBuf>,
    },
    /// In one that runs.
    Running {
        /// The socket of its vsock device.
        socket: PathBuf,
        /// The file with its agent's secret.
        secret: PathBuf,
    },
}

/// Runs the command and gives the exit status of the process. Call it with one thread.
pub fn run(request: Request) -> Result<u8, Error> {
    // What is prepared here is part of the time.
    let deadline = request.timeout.map(|time| Instant::now() + time);
    let signals = Signals::block().map_err(Error::host("take over the signals"))?;
    let Request { place, command, terminal, idle_timeout, .. } = request;
    let wishes = session::Wishes { command, terminal, deadline, idle_timeout };
    match place {
        Place::Running { socket, secret } => {
            let secret = agent_secret::read(&secret)
                .map_err(|source| Error::Read { path: secret, source })?;
            let mut executor = executor()?;
            executor.block_on(session::in_running(&Guest::new(socket), &secret, wishes, signals))
        }
        Place::New { options, modules } => {
            let folder = Folder::create().map_err(Error::host("make a private folder"))?;
            let prepared = prepare(&folder, *options, modules.as_deref(), &wishes)?;
            let mut executor = executor()?;
            executor.block_on(session::in_new(&prepared, wishes, signals))
        }
    }
}

/// Without registered files: older kernels close those late, and what ends by being closed would not.
fn executor() -> Result<Executor, Error> {
    let config = Config { without: KernelFeatures::FIXED_FILES, ..Config::default() };
    Ok(Executor::new(&config)?)
}

/// A machine that could be started.
struct Prepared {
    guest: Guest,
    secret: proto::credentials::Secret,
    description: PathBuf,
    /// Disks that somebody may look at afterwards.
    disks: Disks,
}

/// Whether the guest has to put its disks in order before it goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disks {
    Written,
    None,
}

fn prepare(
    folder: &Folder,
    mut options: MachineOptions,
    modules: Option<&Path>,
    wishes: &session::Wishes,
) -> Result<Prepared, Error> {
    let here = std::env::current_dir().map_err(Error::host("find the working folder"))?;
    options.rebase(&here);
    let kernel = options.kernel.take().map_or_else(kernels::newest, Ok)?;
    let release =
        kernels::release(&kernel).map_err(|source| Error::Read { path: kernel.clone(), source })?;
    options.kernel = Some(kernel);
    let program = String::from_utf8_lossy(wishes.command.argv.first().map_or(&[], Vec::as_slice));
    let own_root = options.initrd.is_none();
    let module_folder = kernels::module_folder(modules, release.as_deref());
    let module_files = match &module_folder {
        Some(folder) => kernels::modules(folder, &MODULES)
            .map_err(|source| Error::Read { path: folder.join("modules.dep"), source })?,
        None => {
            log::info!("no modules were found for the kernel {release:?}; it may need none");
            Vec::new()
        }
    };
    let contents = Contents {
        agent: &agent::program()?,
        modules: module_files,
        before: options.initrd.as_deref(),
        program: own_root.then_some(&*program),
    };
    let initramfs = folder.file("initramfs");
    first_root::write(&contents, &initramfs)
        .map_err(Error::host("write the guest's first root"))?;
    options.initrd = Some(initramfs);
    let words = format!("{KERNEL_WORDS} rdinit={}", first_root::INIT);
    options.cmdline.insert(0, words);

    let secret_file = folder.file("secret");
    let secret = agent_secret::create(&secret_file).map_err(Error::host("make a secret"))?;
    options.agent_secret = Some(secret_file);
    let socket = folder.file("vsock");
    options.vsock = Some(VsockConfig {
        path: socket.clone(),
        cid: GuestCid::default(),
        connections: ConnectionLimit::default(),
    });
    let disks = if options.root.iter().chain(&options.disks).any(|disk| !disk.read_only) {
        Disks::Written
    } else {
        Disks::None
    };
    let description = folder.file("machine.toml");
    let text = toml::to_string(&options)?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&description)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(Error::host("write the machine's description"))?;
    Ok(Prepared { guest: Guest::new(socket), secret, description, disks })
}
