//! Why a description of a machine is refused.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use devices::virtio::console::{ConsoleError, MAX_PORTS};
use thiserror::Error;

use super::{CpuCount, CpuList, MachineConfig, MemorySize, SerialConfig};
use crate::error::Hint;

/// Why a description of a machine is refused.
#[derive(Debug, Error)]
pub enum Error {
    /// The configuration file is not readable.
    #[error("cannot read the configuration file `{path}`", path = .path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The configuration file cannot be a configuration file.
    #[error("the configuration file `{path}` is longer than {limit_bytes} bytes", path = .path.display())]
    FileTooLong {
        /// The file.
        path: PathBuf,
        /// The longest it may be.
        limit_bytes: u64,
    },
    /// The configuration file does not describe a machine.
    #[error("the configuration file `{path}` is not valid", path = .path.display())]
    ParseFile {
        /// The file.
        path: PathBuf,
        /// The key that an unknown one was meant to be.
        nearest: Option<String>,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A file that the guest needs cannot be used.
    #[error("cannot use the {role} `{path}`", path = .path.display())]
    File {
        /// What the file is for.
        role: Role,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: FileProblem,
    },
    /// The initial RAM disk does not fit.
    #[error("the initrd `{path}` of {size_bytes} bytes does not fit into {memory} of memory", path = .path.display())]
    InitrdTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
        /// The guest's memory.
        memory: MemorySize,
    },
    /// An option that only makes sense with a kernel.
    #[error("{option} needs a kernel, and none is given")]
    NeedsKernel {
        /// The option.
        option: &'static str,
    },
    /// The guest cannot have so much memory, or so little.
    #[error("a guest with {memory} of memory cannot run")]
    Memory {
        /// What was asked for.
        memory: MemorySize,
        /// What is wrong with it.
        source: MemoryProblem,
    },
    /// CPUs of the host cannot be had.
    #[error("{whose} cannot run on {noun} {missing}", noun = .missing.noun())]
    Cpus {
        /// What is to run there.
        whose: String,
        /// Those that cannot be had.
        missing: CpuList,
        /// Why not.
        source: CpuProblem,
    },
    /// A virtual CPU that the machine has not is to run somewhere.
    #[error("there is no virtual CPU {vcpu} in a machine with {cpus}")]
    NoSuchCpu {
        /// Its number.
        vcpu: u16,
        /// How many there are.
        cpus: CpuCount,
    },
    /// There is more persistent memory than a guest can have.
    #[error(
        "{count} files of persistent memory are more than the {} of a machine",
        MachineConfig::MAX_PMEMS
    )]
    TooManyPmems {
        /// What was asked for.
        count: usize,
    },
    /// The kernel's driver could not divide it.
    #[error("{size} are not a size for --pstore")]
    PstoreSize {
        /// What was asked for.
        size: MemorySize,
    },
    /// The root file system would be in two places.
    #[error("the root file system is said to be in two places")]
    TwoRoots,
    /// The guest's memory cannot have such a balloon.
    #[error("a balloon of {size} cannot be had")]
    Balloon {
        /// What was asked for.
        size: MemorySize,
        /// What is wrong with it.
        source: BalloonProblem,
    },
    /// There are more disks than a guest can have.
    #[error("{count} disks are more than the {} of a machine", MachineConfig::MAX_DISKS)]
    TooManyDisks {
        /// What was asked for.
        count: usize,
    },
    /// There are more networks than a guest can have.
    #[error("{count} networks are more than the {} of a machine", MachineConfig::MAX_NETS)]
    TooManyNets {
        /// What was asked for.
        count: usize,
    },
    /// There are more named ports than a console has.
    #[error("{count} named ports are more than the {MAX_PORTS} of a console")]
    TooManyPorts {
        /// What was asked for.
        count: usize,
    },
    /// Two consoles have no name.
    #[error("a machine has one console without a name, and two are given")]
    SeveralConsoles,
    /// The name of a port is none.
    #[error("a console has a port that cannot be")]
    PortName(#[source] ConsoleError),
    /// Two ports have one name.
    #[error("two ports of the console are called `{name}`")]
    SamePort {
        /// The name.
        name: String,
    },
    /// Two of serial port, consoles and debug console end at one place.
    #[error("two of serial port, consoles and debug console end at `{end}`")]
    SameEnd {
        /// The place.
        end: SerialConfig,
    },
    /// There are more shared directories than a guest can have.
    #[error(
        "{count} shared directories are more than the {} of a machine",
        MachineConfig::MAX_SHARES
    )]
    TooManyShares {
        /// What was asked for.
        count: usize,
    },
    /// Two directories cannot be told apart.
    #[error("two shared directories have the tag `{tag}`")]
    SameTag {
        /// The tag.
        tag: String,
    },
    /// A shared directory has a map of users or of groups only.
    #[error("the share `{tag}` has a map of users or of groups only")]
    HalfMapped {
        /// The tag.
        tag: String,
    },
    /// There are more devices of other programs than a guest can have.
    #[error(
        "{count} vhost-user devices are more than the {} of a machine",
        MachineConfig::MAX_VHOST_USER
    )]
    TooManyVhostUser {
        /// What was asked for.
        count: usize,
    },
    /// A device of another program has a key of other kinds.
    #[error("a vhost-user device of type {kind} has no `{key}`")]
    StrayKey {
        /// The key.
        key: &'static str,
        /// The type.
        kind: &'static str,
    },
    /// A back end serves one device at a time.
    #[error("two vhost-user devices have the socket `{}`", socket.display())]
    SameSocket {
        /// The socket.
        socket: PathBuf,
    },
    /// Nobody says what to serve.
    #[error("no device to serve is given")]
    NothingServed,
    /// There are more devices than one process can serve.
    #[error("{count} devices are more than the {most} that one command serves")]
    TooManyServed {
        /// What was asked for.
        count: usize,
        /// The most there can be.
        most: usize,
    },
    /// Two devices would be served at one socket.
    #[error("two devices are to be served at the socket `{}`", socket.display())]
    ServedTwice {
        /// The socket.
        socket: PathBuf,
    },
    /// One of several devices that are served cannot be.
    #[error("cannot serve the device at `{}`", socket.display())]
    Served {
        /// Where it would be served.
        socket: PathBuf,
        /// Why not.
        #[source]
        source: Box<Self>,
    },
    /// A directory over 9P has a key of virtio-fs.
    #[error("the share `{tag}` is one over 9P, where `{key}` has no meaning")]
    ForeignKey {
        /// The tag.
        tag: String,
        /// The key.
        key: &'static str,
    },
    /// A share over 9P has no directory.
    #[error("the share `{tag}` is one over 9P and has no path")]
    EmptyShare {
        /// The tag.
        tag: String,
    },
    /// Two devices have one id.
    #[error("two devices have the id `{id}`")]
    SameId {
        /// The id.
        id: String,
    },
    /// Two disks are one file, and one of them would write it.
    #[error("`{second}` is the same file as the disk `{first}`, and the guest would write it",
            first = .first.display(), second = .second.display())]
    SameDisk {
        /// The disk that came first.
        first: PathBuf,
        /// The disk that came later.
        second: PathBuf,
    },
    /// There is nothing to do for some of the threads.
    #[error("the disk `{path}` has {threads} threads for its {queues} {noun}",
            path = .path.display(), noun = if *queues == 1 { "queue" } else { "queues" })]
    DiskThreads {
        /// The disk.
        path: PathBuf,
        /// What was asked for.
        threads: u16,
        /// Its queues.
        queues: u16,
    },
    /// A trace of a device has one writer.
    #[error("the disk `{}` has several threads, which no trace can follow", .path.display())]
    TracedThreads {
        /// The disk.
        path: PathBuf,
    },
    /// The command line holds something that no kernel can read.
    #[error("the command line of the guest holds the control character {character:?}")]
    CommandLine {
        /// The character.
        character: char,
    },
    /// The path of a socket is longer than the system's structure for it.
    #[error("the path of the {role} `{path}` has {length} bytes, more than {limit}", path = .path.display())]
    SocketPath {
        /// What the socket is for.
        role: Role,
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
        /// The longest it may be.
        limit: usize,
    },
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The kernel image.
    Kernel,
    /// The initial RAM disk.
    Initrd,
    /// A disk that the guest only reads.
    ReadOnlyDisk,
    /// A disk that the guest reads and writes.
    Disk,
    /// The file that the serial port writes, or the socket it listens on.
    Serial,
    /// The socket by which others control the machine.
    Control,
    /// The socket for programs of the host that connect to the guest.
    Vsock,
    /// A directory that the guest sees.
    Share,
    /// Where another program serves a device.
    VhostUser,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::ReadOnlyDisk | Self::Disk => "disk",
            Self::Serial => "serial port",
            Self::Control => "control socket",
            Self::Vsock => "vsock",
            Self::Share => "shared directory",
            Self::VhostUser => "vhost-user socket",
        })
    }
}

/// What is wrong with a file.
#[derive(Debug, Error)]
pub enum FileProblem {
    /// It cannot be looked up.
    #[error("it cannot be found")]
    Missing(#[source] io::Error),
    /// It is there, and may not be used.
    #[error("it cannot be opened for {purpose}")]
    Access {
        /// Reading, or reading and writing.
        purpose: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// It is something else than a file of this purpose can be.
    #[error("it is {found}, and {wanted} is wanted")]
    Kind {
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// It has no content.
    #[error("it is empty")]
    Empty,
}

/// What is wrong with an amount of memory.
#[derive(Debug, Error)]
pub enum MemoryProblem {
    /// Nothing boots with so little.
    #[error("the least is {least}")]
    TooLittle {
        /// The least there can be.
        least: MemorySize,
    },
    /// It is not a number of pages.
    #[error("it is not a multiple of {page}")]
    Ragged {
        /// The size of a page.
        page: MemorySize,
    },
    /// The host has less.
    #[error("the host has {host_mib} MiB, swap included")]
    MoreThanHost {
        /// What the host has.
        host_mib: u64,
    },
    /// The host's reserve of huge pages is smaller.
    #[error("{free} free huge pages of 2 MiB are there, and {needed} are needed")]
    HugePages {
        /// How many there are.
        free: u64,
        /// How many it takes.
        needed: u64,
    },
    /// The process may not lock so much.
    #[error("this process may lock {limit} of memory")]
    LockLimit {
        /// The limit (`RLIMIT_MEMLOCK`).
        limit: MemorySize,
    },
}

/// Why nothing can run on a CPU of the host.
#[derive(Debug, Error)]
pub enum CpuProblem {
    /// It is not there, or switched off.
    #[error("this host has the {} {online}", online.noun())]
    Absent {
        /// Those that are there.
        online: CpuList,
    },
    /// The system keeps this process from it.
    #[error("this process may use the {} {allowed}", allowed.noun())]
    Forbidden {
        /// Those that it may use.
        allowed: CpuList,
    },
}

/// What is wrong with a balloon.
#[derive(Debug, Error)]
pub enum BalloonProblem {
    /// What is locked does not leave.
    #[error("all memory is to be kept resident, and a balloon gives it back")]
    Locked,
    /// The guest cannot give up more than it has.
    #[error("the guest has {memory} of memory")]
    LargerThanMemory {
        /// What it has.
        memory: MemorySize,
    },
    /// It is not a number of pages.
    #[error("it is not a multiple of {page}")]
    Ragged {
        /// The size of a page.
        page: MemorySize,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::ReadFile { source, .. } => file_hint(source),
            Self::ParseFile { nearest: Some(word), .. } => {
                Some(format!("did you mean `{word}`?").into())
            }
            Self::File { role, source, .. } => source.hint(*role),
            Self::InitrdTooLarge { .. } => Some("give the guest more with --memory".into()),
            Self::NeedsKernel { option: "--root" } => {
                Some("name a kernel, or give the disk to the built-in guest with --disk".into())
            }
            Self::NeedsKernel { .. } => Some("name a kernel: vmm run KERNEL".into()),
            Self::Memory { memory, source } => Some(source.hint(*memory)),
            Self::Balloon { source, .. } => Some(source.hint()),
            Self::Cpus { source: CpuProblem::Absent { .. }, .. } => {
                Some("`lscpu -e` lists those that there are".into())
            }
            Self::Cpus { source: CpuProblem::Forbidden { .. }, .. } => Some(
                "the others are in no `cpuset.cpus` of its cgroup, see /proc/self/cgroup; in a container, \
                 of the container's"
                    .into(),
            ),
            Self::NoSuchCpu { .. } => Some("they are counted from 0; --cpus says how many".into()),
            Self::PstoreSize { .. } => Some("a power of two from 128K to 64M, such as 1M".into()),
            Self::TwoRoots => Some("--root names one, and so does `root` of --pmem".into()),
            Self::SameDisk { .. } => Some("copy the file, or add `ro` to both disks".into()),
            Self::DiskThreads { .. } => {
                Some("each thread serves at least one queue: more `queues`, or fewer `threads`".into())
            }
            Self::TracedThreads { .. } => {
                Some("leave `threads` out while you trace the machine".into())
            }
            Self::ForeignKey { .. } => {
                Some("the guest says how it caches when it mounts: `-o cache=loose`".into())
            }
            Self::EmptyShare { .. } => {
                Some("directories come and go in shares over virtio-fs: leave `type=9p` out".into())
            }
            Self::HalfMapped { .. } => Some("give it `uid-map` and `gid-map`".into()),
            Self::SameTag { .. } => Some("give each its own `tag`".into()),
            Self::NothingServed => {
                Some("--device type=blk,socket=SOCKET,path=FILE, or a file with --config".into())
            }
            Self::TooManyServed { .. } => Some("serve the others by another command".into()),
            Self::ServedTwice { .. } => Some("give each its own `socket`".into()),
            Self::Served { source, .. } => source.hint(),
            Self::SameSocket { .. } => Some("start the program once for each device".into()),
            Self::SocketPath { .. } => {
                Some("use a shorter path, or one relative to where you are".into())
            }
            Self::FileTooLong { .. } => Some("--config wants a TOML file".into()),
            Self::SeveralConsoles => Some("give the others names: --console KIND,name=NAME".into()),
            Self::SameEnd { .. } => Some("give each one of its own, or `null`".into()),
            Self::ParseFile { .. }
            | Self::TooManyPorts { .. }
            | Self::PortName(_)
            | Self::SamePort { .. }
            | Self::SameId { .. }
            | Self::TooManyDisks { .. }
            | Self::TooManyPmems { .. }
            | Self::TooManyNets { .. }
            | Self::TooManyShares { .. }
            | Self::TooManyVhostUser { .. }
            | Self::StrayKey { .. }
            | Self::CommandLine { .. } => None,
        }
    }
}

impl FileProblem {
    fn hint(&self, role: Role) -> Option<Cow<'static, str>> {
        match (self, role) {
            (Self::Missing(source), Role::Disk) if source.kind() == io::ErrorKind::NotFound => {
                Some("check the path, or make an empty disk with `truncate -s 4G FILE`".into())
            }
            (Self::Missing(source), Role::Serial | Role::Control | Role::Vsock)
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Some("make the folder first".into())
            }
            (Self::Missing(source), Role::VhostUser)
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Some("start the program that serves it first; it makes the socket".into())
            }
            (Self::Access { .. }, Role::Disk) => Some(
                "change its owner or mode, or add `ro` to the disk if the guest need not write"
                    .into(),
            ),
            (Self::Missing(source) | Self::Access { source, .. }, _) => file_hint(source),
            (Self::Kind { found: "a directory", .. }, Role::ReadOnlyDisk | Role::Disk) => {
                Some("make an image of it with `mke2fs -d DIRECTORY FILE SIZE`".into())
            }
            (Self::Kind { .. } | Self::Empty, _) => Some("check the path".into()),
        }
    }
}

impl BalloonProblem {
    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Locked => "leave out --lock-memory or --balloon".into(),
            Self::LargerThanMemory { .. } => {
                "leave the guest what it needs: with all of it gone it cannot run".into()
            }
            Self::Ragged { .. } => {
                "a plain number counts MiB; K, M, G and T are units, and B is bytes".into()
            }
        }
    }
}

impl MemoryProblem {
    fn hint(&self, memory: MemorySize) -> Cow<'static, str> {
        match self {
            Self::TooLittle { .. } | Self::Ragged { .. } => {
                "a plain number counts MiB; K, M, G and T are units, and B is bytes".into()
            }
            Self::MoreThanHost { .. } => "ask for less with --memory".into(),
            Self::HugePages { needed, .. } => format!(
                "as root: echo {needed} > /proc/sys/vm/nr_hugepages, or leave --hugepages out"
            )
            .into(),
            Self::LockLimit { .. } => {
                let kib = memory.bytes() >> 10;
                format!("raise it with `ulimit -l {kib}`, or leave --lock-memory out").into()
            }
        }
    }
}

/// What helps against the usual answers of the file system.
fn file_hint(error: &io::Error) -> Option<Cow<'static, str>> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Some("check the path".into()),
        io::ErrorKind::PermissionDenied => {
            Some("change its owner or mode, or run as its owner".into())
        }
        io::ErrorKind::InvalidData => Some("it is not a text file; check the path".into()),
        io::ErrorKind::IsADirectory => Some("it is a directory; name a file in it".into()),
        _ => None,
    }
}
