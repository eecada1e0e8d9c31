//! What a machine is made of, from the command line, a file or the API.
//!
//! ```text
//!   command line ──clap──┐
//!                        ├─▶ MachineOptions ──check──▶ MachineConfig ──▶ machine::run
//!   vm.toml ─────serde───┘   (all optional)            (complete, in range, files there)
//! ```
//!
//! [`MachineOptions`] is the one schema: its fields are the flags of `vmm run`, the keys of the
//! file and later the message of the API. Two of them are laid over each other with
//! [`MachineOptions::overlay`]. [`MachineOptions::check`] is the only way to a [`MachineConfig`].

mod balloon;
mod byte_count;
mod check;
mod console;
mod count;
mod cpu_affinity;
mod cpu_count;
mod cpu_list;
mod device_id;
mod disk;
mod error;
mod file;
mod host_cpus;
mod host_forward;
pub mod key_value;
mod machine_name;
mod memory_size;
mod net;
mod net_limits;
mod options;
mod owners;
mod pmem;
mod pstore;
mod restart;
mod rings;
mod rng;
mod serial;
mod served;
mod share;
mod suggest;
mod trace;
mod vhost_user;
mod vsock;
mod watchdog;

use std::path::PathBuf;

use serde::Serialize;

pub use balloon::{BalloonConfig, StatsInterval, StatsIntervalError};
pub use byte_count::{ByteCount, ByteCountError};
pub use console::ConsoleConfig;
pub use count::{Count, Counted};
pub use cpu_affinity::{CpuAffinity, CpuAffinityError};
pub use cpu_count::{CpuCount, CpuCountError};
pub use cpu_list::{CpuList, CpuListError};
pub use device_id::{DeviceId, DeviceIdError};
pub use disk::{BlockSize, DiskConfig, DiskValueError, QueueCount, ThreadCount};
pub use error::{BalloonProblem, CpuProblem, Error, FileProblem, MemoryProblem};
pub(crate) use host_cpus::check as check_cpus;
pub use host_forward::{HostForward, Protocol};
pub use machine_name::{MachineName, MachineNameError};
pub use memory_size::{MemorySize, MemorySizeError};
pub use net::{HostAddress, Link, NetConfig, NetPeer, NetValueError, QueuePairs};
pub use net_limits::{NetLimits, TrafficLimits};
pub use options::MachineOptions;
pub use owners::{OwnerMap, OwnerMapError};
pub use pmem::PmemConfig;
pub use pstore::PstoreConfig;
pub use restart::{RestartLimit, RestartLimitError};
pub use rings::RingFormat;
pub use rng::{RngConfig, RngError};
pub use serial::{SerialConfig, SerialError};
pub use served::{DeviceOptions, ServedDevices, check_served};
pub use share::{ShareConfig, ShareProtocol, ShareQueues, ShareTag, ShareValueError};
pub use suggest::nearest;
pub use trace::TraceConfig;
pub use vhost_user::VhostUserConfig;
pub use vsock::{ConnectionLimit, GuestCid, VsockConfig, VsockValueError};
pub use watchdog::WatchdogAction;

/// A machine that can be built: every value is in range, every file was there when it was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MachineConfig {
    /// The kernel image; None is the built-in guest.
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The words for the guest's command line, in order.
    pub cmdline: Vec<String>,
    /// The number of virtual CPUs.
    pub cpus: CpuCount,
    /// Which processors of the host they run on.
    pub cpu_affinity: Option<CpuAffinity>,
    /// The size of guest memory.
    pub memory: MemorySize,
    /// What the pages of guest memory are.
    pub pages: Pages,
    /// When guest memory gets its pages.
    pub residency: Residency,
    /// All disks in the order in which the guest sees them; the root disk comes first.
    pub disks: Vec<DiskConfig>,
    /// All networks in the order in which the guest sees them.
    pub nets: Vec<NetConfig>,
    /// The sockets between guest and host.
    pub vsock: Option<VsockConfig>,
    /// The file with the secret of the agent in the guest.
    pub agent_secret: Option<PathBuf>,
    /// Where the guest's root file system is.
    pub root: RootDisk,
    /// The source of entropy.
    pub rng: RngConfig,
    /// The ports of the virtio console.
    pub consoles: Vec<ConsoleConfig>,
    /// The memory balloon.
    pub balloon: Option<BalloonConfig>,
    /// Directories of the host that the guest sees.
    pub shares: Vec<ShareConfig>,
    /// Devices that other programs serve.
    pub vhost_user: Vec<VhostUserConfig>,
    /// Persistent memory in the order in which the guest sees it; the root comes first.
    pub pmems: Vec<PmemConfig>,
    /// Memory for the last words of the guest's kernel.
    pub pstore: Option<PstoreConfig>,
    /// What a watchdog does, if there is one.
    pub watchdog: Option<WatchdogAction>,
    /// Where it is written down what the machine's actors do.
    pub trace: Option<TraceConfig>,
    /// The host end of the serial port.
    pub serial: SerialConfig,
    /// The host end of the debug console.
    pub debugcon: SerialConfig,
    /// The socket by which others control the machine.
    pub control: Option<PathBuf>,
    /// Where the device back ends run.
    pub placement: Placement,
    /// The formats of virtqueues that devices offer.
    pub rings: RingFormat,
    /// How often the process of a device may be started again.
    pub restart: RestartLimit,
    /// A folder whose seccomp policies stand in for the built-in ones.
    pub seccomp_policy_dir: Option<PathBuf>,
    /// What happens to system calls that a policy does not allow.
    pub seccomp: SeccompMode,
}

/// What happens to system calls that a policy does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum SeccompMode {
    /// They end the process that makes them.
    Enforce,
    /// They are carried out, and the kernel logs them.
    LogFailures,
}

/// What the pages of guest memory are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Pages {
    /// Ordinary pages, made huge by the kernel when it can (THP).
    Transparent,
    /// Pages of 2 MiB from the host's reserve (hugetlbfs).
    Huge,
}

/// When guest memory gets its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Residency {
    /// At the guest's first touch; the host may swap them out.
    OnDemand,
    /// At the start, and they stay (`mlock`).
    Locked,
}

/// Where the guest's root file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RootDisk {
    /// Wherever the command line says.
    Unnamed,
    /// On the first disk, which the command line names.
    First,
}

/// Where device back ends run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Placement {
    /// All in this process, for debuggers and profilers.
    SingleProcess,
    /// Each in a sandboxed process of its own.
    Processes,
}

impl MachineConfig {
    /// The most shared directories of a machine: the bus has no room for many more devices.
    pub const MAX_SHARES: usize = 16;
    /// The most devices that other programs serve, for the same reason.
    pub const MAX_VHOST_USER: usize = 16;
    /// The most files of persistent memory: each takes a slot of the host's KVM.
    pub const MAX_PMEMS: usize = 8;

    /// The most disks of a machine: `vda` to `vdz`.
    pub const MAX_DISKS: usize = 26;
    /// The most networks of a machine: a bus has 31 places for all its devices.
    pub const MAX_NETS: usize = 8;

    /// Whether it has any virtio device.
    pub fn has_devices(&self) -> bool {
        let present = [
            !self.disks.is_empty(),
            !self.nets.is_empty(),
            self.vsock.is_some(),
            !self.consoles.is_empty(),
            self.rng != RngConfig::Absent,
            self.balloon.is_some(),
            !self.shares.is_empty(),
            !self.vhost_user.is_empty(),
            !self.pmems.is_empty(),
        ];
        present.contains(&true)
    }

    /// The whole command line of the guest.
    ///
    /// A kernel gets `console=ttyS0` when there is a serial port that somebody could read and no
    /// word names a console, `console=hvc0` when there is that, and the place of the root disk. The
    /// built-in guest gets the words as they are.
    pub fn kernel_command_line(&self) -> String {
        let mut words = Vec::with_capacity(self.cmdline.len() + 2);
        if self.kernel.is_some() {
            let console_named = self
                .cmdline
                .iter()
                .flat_map(|words| words.split_ascii_whitespace())
                .any(|word| word.starts_with("console="));
            if !console_named && self.serial != SerialConfig::Null {
                words.push("console=ttyS0");
            }
            // The last one is what `/dev/console` is.
            if !console_named && self.consoles.iter().any(|console| console.name.is_none()) {
                words.push("console=hvc0");
            }
            if let (RootDisk::First, Some(disk)) = (self.root, self.disks.first()) {
                words.push(if disk.read_only { "root=/dev/vda ro" } else { "root=/dev/vda rw" });
            }
            if let Some(pmem) = self.pmems.first().filter(|pmem| pmem.root) {
                words.push(if pmem.read_only {
                    "root=/dev/pmem0 ro"
                } else {
                    "root=/dev/pmem0 rw"
                });
            }
        }
        words.extend(self.cmdline.iter().map(String::as_str));
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(kernel: Option<&str>, words: &[&str]) -> MachineConfig {
        MachineConfig {
            kernel: kernel.map(PathBuf::from),
            initrd: None,
            cmdline: words.iter().map(ToString::to_string).collect(),
            cpus: CpuCount::ONE,
            cpu_affinity: None,
            memory: MemorySize::from_mib(64),
            pages: Pages::Transparent,
            residency: Residency::OnDemand,
            disks: vec![DiskConfig::new("a.img")],
            nets: Vec::new(),
            vsock: None,
            agent_secret: None,
            root: RootDisk::First,
            rng: RngConfig::Absent,
            consoles: Vec::new(),
            balloon: None,
            shares: Vec::new(),
            vhost_user: Vec::new(),
            pmems: Vec::new(),
            pstore: None,
            watchdog: None,
            trace: None,
            serial: SerialConfig::Stdio,
            debugcon: SerialConfig::Null,
            control: None,
            placement: Placement::Processes,
            rings: RingFormat::Packed,
            restart: RestartLimit::Always,
            seccomp_policy_dir: None,
            seccomp: SeccompMode::Enforce,
        }
    }

    #[test]
    fn the_command_line_names_console_and_root() {
        let mut linux = config(Some("vmlinux"), &["quiet", "init=/x"]);
        assert_eq!(linux.kernel_command_line(), "console=ttyS0 root=/dev/vda rw quiet init=/x");
        linux.disks[0].read_only = true;
        linux.serial = SerialConfig::Null;
        assert_eq!(linux.kernel_command_line(), "root=/dev/vda ro quiet init=/x");
        linux.consoles = vec!["null,name=a".parse().expect("a port")];
        assert_eq!(linux.kernel_command_line(), "root=/dev/vda ro quiet init=/x");
        linux.consoles.push("pty".parse().expect("a console"));
        assert_eq!(linux.kernel_command_line(), "console=hvc0 root=/dev/vda ro quiet init=/x");
        let linux = config(Some("vmlinux"), &["quiet console=hvc0"]);
        assert_eq!(linux.kernel_command_line(), "root=/dev/vda rw quiet console=hvc0");
        assert_eq!(
            config(None, &["blk=verify", "depth=32"]).kernel_command_line(),
            "blk=verify depth=32"
        );
    }
}
