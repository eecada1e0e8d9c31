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
mod cache;
mod error;
mod first_root;
mod forwards;
mod host_mounts;
mod image;
mod kernels;
mod machine;
mod programs;
mod root;
mod root_dir;
mod session;
mod time;
mod transfer;

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_client::{Command, Guest};
use executor::{Config, Executor, KernelFeatures};

pub use error::{Error, status};
pub use forwards::{Expose, Forwarding, Ports, PortsError, Publish, forward};
pub use root::{Root, SharedFolder, Writes};
pub use root_dir::{BootFiles, RootDir, RootDirError, boot_from};
pub use time::{Time, TimeError};
pub use transfer::{Files, Local, Progress, Transfer, copy};

use crate::agent_secret;
use crate::config::{ConnectionLimit, GuestCid, MachineOptions, ShareProtocol, VsockConfig};
use crate::crashes::{Store, Taker};
use crate::folder::Folder;
use crate::logs::Log;
use crate::names::Claim;
use crate::signals::Signals;
use first_root::Contents;
use kernels::KernelModules;
use machine::Farewell;
use root::Plan;

/// Drivers without which there is no agent.
const MODULES: [&str; 2] = ["virtio_pci", "vmw_vsock_virtio_transport"];
/// Those that tell of panics; a console tells of them too, so they can wait until a command runs.
const LATER: [&str; 2] = ["pvpanic-mmio", "pvpanic-pci"];
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
    /// Ports that lead to the other side meanwhile.
    pub ports: Ports,
    /// Where to put what a new guest logs.
    pub log: Option<Log>,
    /// Where to keep crashes of a new guest's programs; None: with all others of this user.
    pub crashes: Option<PathBuf>,
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
        /// What its root is.
        root: Root,
        /// What else it has of the host.
        folders: Vec<SharedFolder>,
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
    let deadline = request.timeout.map(|time| executor::now() + time);
    let signals = Signals::block().map_err(Error::host("take over the signals"))?;
    let Request { place, command, terminal, idle_timeout, ports, log, crashes, .. } = request;
    let mut wishes = session::Wishes { command, terminal, deadline, idle_timeout, ports };
    match place {
        Place::Running { socket, secret } => {
            let secret = agent_secret::read(&secret)
                .map_err(|source| Error::Read { path: secret, source })?;
            let mut executor = executor()?;
            executor.block_on(session::in_running(&Guest::new(socket), &secret, wishes, signals))
        }
        Place::New { options, modules, root, folders } => {
            let folder = Folder::create().map_err(Error::host("make a private folder"))?;
            let wanted = New { options: *options, modules, root, folders };
            let prepared = prepare(&folder, wanted, &mut wishes.command)?;
            let mut executor = executor()?;
            // Nothing is wrong as long as nothing crashes.
            let store = Store::new(crashes.as_deref()).ok();
            let crashes = Taker { store, machine: folder.name() };
            executor.block_on(session::in_new(&prepared, wishes, signals, log, crashes))
        }
    }
}

/// Without registered files: older kernels close those late, and what ends by being closed would not.
pub(crate) fn executor() -> Result<Executor, Error> {
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
    farewell: Farewell,
    /// By which others reach the machine.
    _name: Option<Claim>,
}

/// Whether the guest has to put its disks in order before it goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disks {
    Written,
    None,
}

/// What is wanted of a new machine.
struct New {
    options: MachineOptions,
    modules: Option<PathBuf>,
    root: Root,
    folders: Vec<SharedFolder>,
}

fn prepare(folder: &Folder, wanted: New, command: &mut Command) -> Result<Prepared, Error> {
    let New { mut options, modules, root, folders } = wanted;
    let here = std::env::current_dir().map_err(Error::host("find the working folder"))?;
    options.rebase(&here);
    let kernel = options.kernel.take();
    let kernel = kernel.map_or_else(|| kernels::newest(Path::new(kernels::BOOT)), Ok)?;
    let modules = KernelModules::find(modules.as_deref(), &kernel)?;
    options.kernel = Some(kernel);
    let program = OsStr::from_bytes(command.argv.first().map_or(&[], Vec::as_slice)).to_owned();
    let plan = root::plan(root, folders, &mut options, modules.list(), &here, Path::new(&program))?;
    at_home(command, &plan);
    let wanted: Vec<_> =
        MODULES.into_iter().chain(devices(&options)).chain(plan.modules.iter().copied()).collect();
    let program = program.to_string_lossy();
    let agent = agent::program()?;
    let contents = Contents {
        agent: &agent.bytes,
        agent_version: &agent.version,
        later: modules.files(&LATER),
        modules: modules.files(&wanted),
        mounts: &plan.mounts,
        before: options.initrd.as_deref(),
        program: plan.in_memory.then_some(&*program),
        init: None,
    };
    let initramfs = first_root::provide(&contents, &folder.file("initramfs"))
        .map_err(Error::host("write the guest's first root"))?;
    options.initrd = Some(initramfs);
    let words = format!("{KERNEL_WORDS} rdinit={}", first_root::INIT);
    options.cmdline.insert(0, words);

    let name = Claim::of(&mut options)?;
    let farewell = farewell(&options);
    // One that has a name is there for others, too.
    let vsock = options.vsock.take().unwrap_or_else(|| VsockConfig {
        path: folder.file("vsock"),
        cid: GuestCid::default(),
        connections: ConnectionLimit::default(),
        cpus: None,
    });
    let socket = vsock.path.clone();
    let secret_file = options.agent_secret.take().unwrap_or_else(|| agent_secret::beside(&socket));
    let secret = agent_secret::open(&secret_file).map_err(Error::host("make a secret"))?;
    options.agent_secret = Some(secret_file);
    options.vsock = Some(vsock);
    let disks = options.root.iter().chain(&options.disks).map(|disk| disk.read_only);
    let shares = options.shares.iter().map(|share| share.read_only);
    let written = disks.chain(shares).any(|read_only| !read_only);
    let disks = if written { Disks::Written } else { Disks::None };
    let description = folder.file("machine.toml");
    let text = toml::to_string(&options)?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&description)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(Error::host("write the machine's description"))?;
    Ok(Prepared { guest: Guest::new(socket), secret, description, disks, farewell, _name: name })
}

/// What has a name that its user chose is left in order.
fn farewell(options: &MachineOptions) -> Farewell {
    let is_known = options.vsock.is_some()
        || options.control.is_some()
        || options.trace.is_some()
        || options.serial.is_some()
        || options.debugcon.is_some()
        || !options.consoles.is_empty();
    if is_known { Farewell::InOrder } else { Farewell::AtOnce }
}

/// Where the guest has this host's root, a command is where it would be here, and finds what it would
/// find.
fn at_home(command: &mut Command, plan: &Plan) {
    if let Some(folder) = plan.folder.as_ref().filter(|_| command.cwd.is_empty()) {
        command.cwd = folder.as_os_str().as_bytes().to_vec();
    }
    let has_path = command.env.iter().any(|(name, _)| name == b"PATH");
    if let Some(path) = std::env::var_os("PATH").filter(|_| plan.is_host && !has_path) {
        command.env.push((b"PATH".to_vec(), path.into_vec()));
    }
}

/// Drivers of the devices that the machine has for its user.
fn devices(options: &MachineOptions) -> impl Iterator<Item = &'static str> {
    let shares = |protocol| options.shares.iter().any(|share| share.protocol == protocol);
    [
        ("virtio_blk", options.root.is_some() || !options.disks.is_empty()),
        ("virtio_net", !options.nets.is_empty()),
        ("virtio_console", !options.consoles.is_empty()),
        ("virtio-rng", options.rng.is_some()),
        ("virtio_balloon", options.balloon.is_some()),
        ("virtiofs", shares(ShareProtocol::Fs)),
        ("9pnet_virtio", shares(ShareProtocol::P9)),
        ("9p", shares(ShareProtocol::P9)),
        ("virtio_pmem", !options.pmems.is_empty()),
        ("nd_pmem", !options.pmems.is_empty()),
        ("ramoops", options.pstore.is_some()),
    ]
    .into_iter()
    .filter_map(|(module, is_there)| is_there.then_some(module))
}
