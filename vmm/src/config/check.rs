//! The one place where a description of a machine is checked against what machines can be and
//! what this host has.
//!
//! Files are looked at, not opened: whoever uses one opens it and checks its content. What is
//! found here is found before anything was made that would have to be cleaned up.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use devices::virtio::console::{MAX_PORTS, PortRole};
use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;

use super::error::{BalloonProblem, Error, FileProblem, MemoryProblem, Role};
use super::{
    BalloonConfig, ConsoleConfig, CpuCount, DeviceId, DiskConfig, MachineConfig, MachineOptions,
    MemorySize, Pages, Placement, PmemConfig, Residency, RootDisk, SeccompMode, SerialConfig,
    ShareConfig, ShareProtocol, TraceConfig, VhostUserConfig, host_cpus,
};
use crate::pstore::SIZES;

/// What a machine has when nobody says how much.
const DEFAULT_MEMORY: MemorySize = MemorySize::from_mib(512);

/// The first 2 MiB hold what the VMM itself puts there (boot structures, firmware tables); kernels
/// are loaded behind it.
const LEAST_MEMORY: MemorySize = MemorySize::from_mib(4);

/// Memory is mapped in pages.
const PAGE: MemorySize = MemorySize::from_bytes(4096);

/// The size of a page from the host's reserve.
const HUGE_PAGE: MemorySize = MemorySize::from_mib(2);

/// Where the kernel tells how many huge pages are free.
const FREE_HUGE_PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

/// `sun_path` has 108 bytes, the last of which is 0.
const MAX_SOCKET_PATH: usize = 107;

/// What follows the path of a vsock in the names of other sockets: `_` and a port.
const LONGEST_VSOCK_SUFFIX: usize = "_4294967295".len();

impl MachineOptions {
    /// Checks everything that can be checked without opening or making anything.
    pub fn check(self) -> Result<MachineConfig, Error> {
        let memory = self.memory.unwrap_or(DEFAULT_MEMORY);
        let pages = if self.hugepages == Some(true) { Pages::Huge } else { Pages::Transparent };
        let residency =
            if self.lock_memory == Some(true) { Residency::Locked } else { Residency::OnDemand };
        check_memory(memory, pages, residency)?;
        host_cpus::check_all(&self)?;
        check_command_line(&self.cmdline)?;
        if let Some(kernel) = &self.kernel {
            check_image(Role::Kernel, kernel)?;
        }
        if let Some(initrd) = &self.initrd {
            check_initrd(initrd, self.kernel.as_deref(), memory)?;
        }
        if self.root.is_some() && self.kernel.is_none() {
            return Err(Error::NeedsKernel { option: "--root" });
        }
        let root = if self.root.is_some() { RootDisk::First } else { RootDisk::Unnamed };
        let disks: Vec<_> = self.root.into_iter().chain(self.disks).collect();
        check_disks(&disks)?;
        check_threads(&disks, self.cpus.unwrap_or(CpuCount::ONE), self.trace.as_ref())?;
        if self.nets.len() > MachineConfig::MAX_NETS {
            return Err(Error::TooManyNets { count: self.nets.len() });
        }
        check_ids(disks.iter().map(|disk| &disk.id).chain(self.nets.iter().map(|net| &net.id)))?;
        if let Some(vsock) = &self.vsock {
            check_new_file(Role::Vsock, &vsock.path, NewFile::Sockets)?;
        }
        check_consoles(&self.consoles)?;
        let debugcon = self.debugcon.unwrap_or(SerialConfig::Null);
        let serial = choose_serial(self.serial, &self.consoles, &debugcon);
        let ends = self.consoles.iter().map(|console| &console.end).chain([&serial, &debugcon]);
        check_ends(&ends.collect::<Vec<_>>())?;
        let pmems = check_pmems(self.pmems, root, self.kernel.is_some())?;
        if let Some(pstore) = &self.pstore {
            if self.kernel.is_none() {
                return Err(Error::NeedsKernel { option: "--pstore" });
            }
            if !pstore.size.bytes().is_power_of_two() || !SIZES.contains(&pstore.size.bytes()) {
                return Err(Error::PstoreSize { size: pstore.size });
            }
        }
        if let Some(balloon) = &self.balloon {
            check_balloon(balloon, memory, residency)?;
        }
        if let Some(path) = &self.control {
            check_new_file(Role::Control, path, NewFile::Socket)?;
        }
        check_shares(&self.shares)?;
        check_vhost_user(&self.vhost_user)?;
        let single_process = self.single_process == Some(true);
        let cpus = self.cpus.unwrap_or(CpuCount::ONE);
        if let Some(vcpu) = self.cpu_affinity.as_ref().and_then(|all| all.stranger(cpus)) {
            return Err(Error::NoSuchCpu { vcpu, cpus });
        }
        Ok(MachineConfig {
            kernel: self.kernel,
            initrd: self.initrd,
            cmdline: self.cmdline,
            cpus,
            cpu_affinity: self.cpu_affinity,
            memory,
            pages,
            residency,
            disks,
            nets: self.nets,
            vsock: self.vsock,
            agent_secret: self.agent_secret,
            root,
            rng: self.rng.unwrap_or_default(),
            consoles: self.consoles,
            balloon: self.balloon,
            shares: self.shares,
            vhost_user: self.vhost_user,
            pmems,
            pstore: self.pstore,
            watchdog: self.watchdog,
            trace: self.trace,
            serial,
            debugcon,
            control: self.control,
            placement: if single_process { Placement::SingleProcess } else { Placement::Processes },
            rings: self.rings.unwrap_or_default(),
            restart: self.restart.unwrap_or_default(),
            seccomp_policy_dir: self.seccomp_policy_dir,
            seccomp: if self.seccomp_log_failures == Some(true) {
                SeccompMode::LogFailures
            } else {
                SeccompMode::Enforce
            },
        })
    }
}

fn check_memory(memory: MemorySize, pages: Pages, residency: Residency) -> Result<(), Error> {
    let page = if pages == Pages::Huge { HUGE_PAGE } else { PAGE };
    let host_bytes = host_memory_bytes();
    let source = if memory < LEAST_MEMORY {
        MemoryProblem::TooLittle { least: LEAST_MEMORY }
    } else if !memory.bytes().is_multiple_of(page.bytes()) {
        MemoryProblem::Ragged { page }
    } else if memory.bytes() > host_bytes {
        MemoryProblem::MoreThanHost { host_mib: host_bytes >> 20 }
    } else if let Some(problem) = huge_page_problem(memory, pages) {
        problem
    } else if let Some(problem) = lock_problem(memory, residency) {
        problem
    } else {
        return Ok(());
    };
    Err(Error::Memory { memory, source })
}

fn host_memory_bytes() -> u64 {
    let host = rustix::system::sysinfo();
    host.totalram.saturating_add(host.totalswap).saturating_mul(u64::from(host.mem_unit))
}

fn huge_page_problem(memory: MemorySize, pages: Pages) -> Option<MemoryProblem> {
    if pages != Pages::Huge {
        return None;
    }
    let needed = memory.bytes() / HUGE_PAGE.bytes();
    // A kernel that does not tell has none.
    let free = fs::read_to_string(FREE_HUGE_PAGES)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    (free < needed).then_some(MemoryProblem::HugePages { free, needed })
}

fn lock_problem(memory: MemorySize, residency: Residency) -> Option<MemoryProblem> {
    if residency != Residency::Locked {
        return None;
    }
    let privileged = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let limit = getrlimit(Resource::Memlock).current.filter(|_| !privileged)?;
    (limit < memory.bytes())
        .then_some(MemoryProblem::LockLimit { limit: MemorySize::from_bytes(limit) })
}

/// The one with the root comes first, as its name in the guest says.
fn check_pmems(
    mut pmems: Vec<PmemConfig>,
    root: RootDisk,
    kernel: bool,
) -> Result<Vec<PmemConfig>, Error> {
    if pmems.len() > MachineConfig::MAX_PMEMS {
        return Err(Error::TooManyPmems { count: pmems.len() });
    }
    let roots = pmems.iter().filter(|pmem| pmem.root).count();
    if roots > 0 && !kernel {
        return Err(Error::NeedsKernel { option: "a root on --pmem" });
    }
    if roots + usize::from(root == RootDisk::First) > 1 {
        return Err(Error::TwoRoots);
    }
    pmems.sort_by_key(|pmem| !pmem.root);
    Ok(pmems)
}

fn check_balloon(
    balloon: &BalloonConfig,
    memory: MemorySize,
    residency: Residency,
) -> Result<(), Error> {
    let size = balloon.size;
    let source = if residency == Residency::Locked {
        BalloonProblem::Locked
    } else if size > memory {
        BalloonProblem::LargerThanMemory { memory }
    } else if !size.bytes().is_multiple_of(PAGE.bytes()) {
        BalloonProblem::Ragged { page: PAGE }
    } else {
        return Ok(());
    };
    Err(Error::Balloon { size, source })
}

/// A line break would end the line early in what the kernel prints; a zero ends it in memory.
fn check_command_line(words: &[String]) -> Result<(), Error> {
    match words.iter().flat_map(|word| word.chars()).find(|letter| letter.is_control()) {
        Some(character) => Err(Error::CommandLine { character }),
        None => Ok(()),
    }
}

fn check_initrd(path: &Path, kernel: Option<&Path>, memory: MemorySize) -> Result<(), Error> {
    let size_bytes = check_image(Role::Initrd, path)?.len();
    if kernel.is_none() {
        return Err(Error::NeedsKernel { option: "--initrd" });
    }
    if size_bytes >= memory.bytes() {
        return Err(Error::InitrdTooLarge { path: path.to_owned(), size_bytes, memory });
    }
    Ok(())
}

fn check_image(role: Role, path: &Path) -> Result<Metadata, Error> {
    let problem = |source| Error::File { role, path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(|error| problem(FileProblem::Missing(error)))?;
    if !metadata.is_file() {
        let found = kind_name(&metadata);
        return Err(problem(FileProblem::Kind { found, wanted: "a regular file" }));
    }
    check_access(path, Access::READ_OK, "reading").map_err(problem)?;
    if metadata.len() == 0 {
        return Err(problem(FileProblem::Empty));
    }
    Ok(metadata)
}

fn check_disks(disks: &[DiskConfig]) -> Result<(), Error> {
    if disks.len() > MachineConfig::MAX_DISKS {
        return Err(Error::TooManyDisks { count: disks.len() });
    }
    let mut seen: Vec<((u64, u64), &DiskConfig)> = Vec::with_capacity(disks.len());
    for disk in disks {
        let metadata = check_disk(disk)?;
        let identity = (metadata.dev(), metadata.ino());
        let same = seen.iter().find(|(other, _)| *other == identity).map(|(_, other)| *other);
        if let Some(first) = same.filter(|first| !first.read_only || !disk.read_only) {
            return Err(Error::SameDisk { first: first.path.clone(), second: disk.path.clone() });
        }
        seen.push((identity, disk));
    }
    Ok(())
}

fn check_threads(
    disks: &[DiskConfig],
    cpus: CpuCount,
    trace: Option<&TraceConfig>,
) -> Result<(), Error> {
    for disk in disks {
        let (threads, queues) = (disk.threads.get(), disk.queues_for(cpus).get());
        let path = || disk.path.clone();
        if threads > queues {
            return Err(Error::DiskThreads { path: path(), threads, queues });
        }
        if threads > 1 && trace.is_some() {
            return Err(Error::TracedThreads { path: path() });
        }
    }
    Ok(())
}

fn check_disk(disk: &DiskConfig) -> Result<Metadata, Error> {
    let role = if disk.read_only { Role::ReadOnlyDisk } else { Role::Disk };
    let problem = |source| Error::File { role, path: disk.path.clone(), source };
    let metadata =
        fs::metadata(&disk.path).map_err(|error| problem(FileProblem::Missing(error)))?;
    if !metadata.is_file() && !metadata.file_type().is_block_device() {
        let found = kind_name(&metadata);
        let wanted = "a regular file or a block device";
        return Err(problem(FileProblem::Kind { found, wanted }));
    }
    let (mode, purpose) = if disk.read_only {
        (Access::READ_OK, "reading")
    } else {
        (Access::READ_OK | Access::WRITE_OK, "reading and writing")
    };
    check_access(&disk.path, mode, purpose).map_err(problem)?;
    Ok(metadata)
}

/// Each device can be told from the others.
fn check_ids<'a>(ids: impl Iterator<Item = &'a Option<DeviceId>>) -> Result<(), Error> {
    let mut seen = HashSet::new();
    match ids.flatten().find(|id| !seen.insert(*id)) {
        Some(id) => Err(Error::SameId { id: id.as_str().to_owned() }),
        None => Ok(()),
    }
}

fn check_consoles(consoles: &[ConsoleConfig]) -> Result<(), Error> {
    let names = consoles.iter().filter_map(|console| console.name.as_ref());
    let names = names.collect::<Vec<_>>();
    if names.len() > MAX_PORTS {
        return Err(Error::TooManyPorts { count: names.len() });
    }
    if consoles.len() - names.len() > 1 {
        return Err(Error::SeveralConsoles);
    }
    for (index, name) in names.iter().enumerate() {
        PortRole::Named((*name).clone()).check().map_err(Error::PortName)?;
        if names[..index].contains(name) {
            return Err(Error::SamePort { name: (*name).clone() });
        }
    }
    Ok(())
}

/// Standard input and output are the serial port's unless somebody else was given them.
fn choose_serial(
    wanted: Option<SerialConfig>,
    consoles: &[ConsoleConfig],
    debugcon: &SerialConfig,
) -> SerialConfig {
    let mut others = consoles.iter().map(|console| &console.end).chain([debugcon]);
    let taken = others.any(|end| *end == SerialConfig::Stdio);
    wanted.unwrap_or(if taken { SerialConfig::Null } else { SerialConfig::Stdio })
}

/// The ends of all lines of characters: those that there can be, and none twice.
fn check_ends(ends: &[&SerialConfig]) -> Result<(), Error> {
    for (index, end) in ends.iter().enumerate() {
        check_serial(end)?;
        if end.is_exclusive() && ends[..index].contains(end) {
            return Err(Error::SameEnd { end: (*end).clone() });
        }
    }
    Ok(())
}

fn check_shares(shares: &[ShareConfig]) -> Result<(), Error> {
    if shares.len() > MachineConfig::MAX_SHARES {
        return Err(Error::TooManyShares { count: shares.len() });
    }
    for (index, share) in shares.iter().enumerate() {
        if let Some(path) = &share.path {
            check_directory(path)?;
        }
        if share.uid_map.is_some() != share.gid_map.is_some() {
            return Err(Error::HalfMapped { tag: share.tag.as_str().to_owned() });
        }
        let tag = || share.tag.as_str().to_owned();
        if let Some(key) = share.foreign_key() {
            return Err(Error::ForeignKey { tag: tag(), key });
        }
        if share.path.is_none() && share.protocol == ShareProtocol::P9 {
            return Err(Error::EmptyShare { tag: tag() });
        }
        if shares[..index].iter().any(|other| other.tag == share.tag) {
            return Err(Error::SameTag { tag: share.tag.as_str().to_owned() });
        }
    }
    Ok(())
}

fn check_vhost_user(remotes: &[VhostUserConfig]) -> Result<(), Error> {
    if remotes.len() > MachineConfig::MAX_VHOST_USER {
        return Err(Error::TooManyVhostUser { count: remotes.len() });
    }
    for (index, remote) in remotes.iter().enumerate() {
        let socket = &remote.socket;
        if let Some(key) = remote.stray_key() {
            return Err(Error::StrayKey { key, kind: remote.kind.name() });
        }
        if remotes[..index].iter().any(|other| other.socket == *socket) {
            return Err(Error::SameSocket { socket: socket.clone() });
        }
        let problem = |source| Error::File { role: Role::VhostUser, path: socket.clone(), source };
        let metadata =
            fs::metadata(socket).map_err(|error| problem(FileProblem::Missing(error)))?;
        if !metadata.file_type().is_socket() {
            let found = kind_name(&metadata);
            return Err(problem(FileProblem::Kind { found, wanted: "a socket" }));
        }
    }
    Ok(())
}

fn check_directory(path: &Path) -> Result<(), Error> {
    let problem = |source| Error::File { role: Role::Share, path: path.to_path_buf(), source };
    let metadata = fs::metadata(path).map_err(|error| problem(FileProblem::Missing(error)))?;
    if !metadata.is_dir() {
        let found = kind_name(&metadata);
        return Err(problem(FileProblem::Kind { found, wanted: "a directory" }));
    }
    Ok(())
}

fn check_serial(serial: &SerialConfig) -> Result<(), Error> {
    match serial {
        SerialConfig::File(path) => check_new_file(Role::Serial, path, NewFile::Regular),
        SerialConfig::Unix(path) => check_new_file(Role::Serial, path, NewFile::Socket),
        _ => Ok(()),
    }
}

/// What will be made at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NewFile {
    Regular,
    Socket,
    /// A socket, and others with longer names.
    Sockets,
}

impl NewFile {
    fn longest_path(self) -> usize {
        match self {
            Self::Regular => usize::MAX,
            Self::Socket => MAX_SOCKET_PATH,
            Self::Sockets => MAX_SOCKET_PATH - LONGEST_VSOCK_SUFFIX,
        }
    }
}

fn check_new_file(role: Role, path: &Path, kind: NewFile) -> Result<(), Error> {
    let problem = |source| Error::File { role, path: path.to_owned(), source };
    let (length, limit) = (path.as_os_str().as_bytes().len(), kind.longest_path());
    if length > limit {
        return Err(Error::SocketPath { role, path: path.to_owned(), length, limit });
    }
    let folder = folder_of(path);
    let metadata = fs::metadata(&folder).map_err(|error| problem(FileProblem::Missing(error)))?;
    if !metadata.is_dir() {
        let found = "in something that is no directory";
        return Err(problem(FileProblem::Kind { found, wanted: "a directory" }));
    }
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return Err(problem(FileProblem::Kind { found: "a directory", wanted: "a file" }));
    }
    Ok(())
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder.as_os_str() != OsStr::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn check_access(path: &Path, mode: Access, purpose: &'static str) -> Result<(), FileProblem> {
    access(path, mode)
        .map_err(|errno| FileProblem::Access { purpose, source: io::Error::from(errno) })
}

fn kind_name(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_char_device() {
        "a character device"
    } else if kind.is_block_device() {
        "a block device"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a regular file"
    }
}
