//! The one schema of a machine: flags of the command line and keys of the file.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{
    BalloonConfig, ConsoleConfig, CpuAffinity, CpuCount, DiskConfig, MachineName, MemorySize,
    NetConfig, PmemConfig, PstoreConfig, RestartLimit, RingFormat, RngConfig, SerialConfig,
    ShareConfig, TraceConfig, VhostUserConfig, VsockConfig, WatchdogAction,
};

/// All that can be said about a machine. What is not said has a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MachineOptions {
    /// Kernel: vmlinux (ELF) or bzImage; without one the built-in guest runs
    #[arg(value_name = "KERNEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,

    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,

    /// Words for the guest's command line; may be repeated
    #[arg(short = 'p', long, value_name = "WORDS", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmdline: Vec<String>,

    /// Number of CPUs, 1 to 64 [default: 1]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<CpuCount>,

    /// CPUs of the host for virtual ones: 0-3 for all, or 0=4,1=5,2-3=6-7 for each [default: any]
    #[arg(long, value_name = "LIST")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_affinity: Option<CpuAffinity>,

    /// Memory: 512 (MiB), 512M, 6G [default: 512M]
    #[arg(short, long, value_name = "SIZE", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemorySize>,

    /// Take memory from the host's reserve of 2 MiB pages
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugepages: Option<bool>,

    /// Keep all memory resident from the start
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_memory: Option<bool>,

    /// Disk: path=FILE[,ro][,direct][,queues=1..16][,threads=1..16][,block-size=512|4096][,id=TEXT][,cpus=CPUS][,limit-bytes=SIZE][,limit-ops=N]; may be repeated
    #[arg(short, long = "disk", value_name = "LIST")]
    #[serde(rename = "disk", skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskConfig>,

    /// Disk with the root file system: as --disk, comes first, named on the command line
    #[arg(short, long, value_name = "LIST")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<DiskConfig>,

    /// Network: tap[=NAME], user[,hostfwd=RULE] or fd=N; then [,mac=..][,queues=1..16][,mtu=N]
    /// [,address=A/P][,link=down][,id=TEXT][,cpus=CPUS][,limit-[rx-|tx-]bytes=SIZE][,limit-[rx-|tx-]ops=N];
    /// may be repeated
    #[arg(short, long = "net", value_name = "LIST")]
    #[serde(rename = "net", skip_serializing_if = "Vec::is_empty")]
    pub nets: Vec<NetConfig>,

    /// Sockets between guest and host: path=SOCKET[,cid=N][,connections=N][,cpus=CPUS]
    #[arg(long, value_name = "LIST")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockConfig>,

    /// File with the secret of the agent in the guest, made if it is not there
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_secret: Option<PathBuf>,

    /// Entropy source, limited to so many bytes per second if a number is given
    #[arg(long, value_name = "RATE", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rng: Option<RngConfig>,

    /// Console hvc0, or with a name a port of bytes: KIND[,name=NAME], KIND as for --serial; may be
    /// repeated
    #[arg(long = "console", value_name = "KIND")]
    #[serde(rename = "console", skip_serializing_if = "Vec::is_empty")]
    pub consoles: Vec<ConsoleConfig>,

    /// Memory balloon: [size=SIZE][,reporting][,deflate-on-oom][,stats-interval=SECONDS]
    #[arg(long, value_name = "LIST")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balloon: Option<BalloonConfig>,

    /// Shared directory, or a place for some: [path=DIR,]tag=TAG[,type=fs|9p][,ro][,cache=never|auto|always][,writeback][,acl]
    /// [,queues=1..16][,cpus=CPUS][,uid-map=MAP,gid-map=MAP]; may be repeated
    #[arg(long = "share", value_name = "LIST")]
    #[serde(rename = "share", skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<ShareConfig>,

    /// Device that another program serves over vhost-user:
    /// type=blk|net|fs|vsock|rng|console,socket=SOCKET [,queues=1..16][,tag=TAG][,mac=..]; may be
    /// repeated
    #[arg(long = "vhost-user", value_name = "LIST")]
    #[serde(rename = "vhost-user", skip_serializing_if = "Vec::is_empty")]
    pub vhost_user: Vec<VhostUserConfig>,

    /// Persistent memory: path=FILE[,ro][,size=SIZE][,root]; may be repeated
    #[arg(long = "pmem", value_name = "LIST")]
    #[serde(rename = "pmem", skip_serializing_if = "Vec::is_empty")]
    pub pmems: Vec<PmemConfig>,

    /// Memory for the last words of the guest's kernel (ramoops): path=FILE[,size=SIZE]
    #[arg(long, value_name = "LIST")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pstore: Option<PstoreConfig>,

    /// Watchdog (ACPI WDAT), and what it counts as when it fires: reset, shutdown or panic
    #[arg(long, value_name = "ACTION", num_args = 0..=1, require_equals = true,
          default_missing_value = "reset", hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<WatchdogAction>,

    /// Serial port: stdio, file=PATH, pty, unix=PATH or null [default: stdio, or null with --console
    /// stdio]
    #[arg(long, value_name = "KIND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<SerialConfig>,

    /// What the machine is called: `vmm shell NAME`, `vmm ctl NAME`; it has a vsock and a control socket then
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<MachineName>,

    /// Listen on this Unix socket for `vmm ctl`; for this user and root alone
    #[arg(long, value_name = "SOCK")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<PathBuf>,

    /// Write down what the machine's actors do: FILE, or FILE,last=SIZE for the end of it; see `vmm trace`
    #[arg(long, value_name = "LIST")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceConfig>,

    /// Debug console at ports 0xe9 and 0x402: KIND as for --serial [default: null]
    #[arg(long, value_name = "KIND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debugcon: Option<SerialConfig>,

    /// Run everything in one process, for debuggers and profilers
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub single_process: Option<bool>,

    /// Virtqueues that devices offer: packed, which includes split, or split [default: packed]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rings: Option<RingFormat>,

    /// How often a device's process that died is started again: always, never or N [default: always]
    #[arg(long, value_name = "LIMIT", allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartLimit>,

    /// Folder with KIND.policy files that stand in for the built-in seccomp policies
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp_policy_dir: Option<PathBuf>,

    /// Let system calls through that a policy does not allow; the kernel logs them
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp_log_failures: Option<bool>,
}

impl MachineOptions {
    /// Lays other options over these: single values win, lists come after these.
    #[must_use]
    pub fn overlay(self, over: Self) -> Self {
        Self {
            kernel: over.kernel.or(self.kernel),
            initrd: over.initrd.or(self.initrd),
            cmdline: join(self.cmdline, over.cmdline),
            cpus: over.cpus.or(self.cpus),
            cpu_affinity: over.cpu_affinity.or(self.cpu_affinity),
            memory: over.memory.or(self.memory),
            hugepages: over.hugepages.or(self.hugepages),
            lock_memory: over.lock_memory.or(self.lock_memory),
            disks: join(self.disks, over.disks),
            root: over.root.or(self.root),
            nets: join(self.nets, over.nets),
            vsock: over.vsock.or(self.vsock),
            agent_secret: over.agent_secret.or(self.agent_secret),
            rng: over.rng.or(self.rng),
            consoles: join(self.consoles, over.consoles),
            balloon: over.balloon.or(self.balloon),
            shares: join(self.shares, over.shares),
            vhost_user: join(self.vhost_user, over.vhost_user),
            pmems: join(self.pmems, over.pmems),
            pstore: over.pstore.or(self.pstore),
            watchdog: over.watchdog.or(self.watchdog),
            trace: over.trace.or(self.trace),
            serial: over.serial.or(self.serial),
            debugcon: over.debugcon.or(self.debugcon),
            name: over.name.or(self.name),
            control: over.control.or(self.control),
            single_process: over.single_process.or(self.single_process),
            rings: over.rings.or(self.rings),
            restart: over.restart.or(self.restart),
            seccomp_policy_dir: over.seccomp_policy_dir.or(self.seccomp_policy_dir),
            seccomp_log_failures: over.seccomp_log_failures.or(self.seccomp_log_failures),
        }
    }

    /// Makes relative paths start at `folder`.
    pub(crate) fn rebase(&mut self, folder: &Path) {
        let files = self.kernel.iter_mut().chain(self.initrd.iter_mut());
        let disks = self.disks.iter_mut().chain(self.root.iter_mut()).map(|disk| &mut disk.path);
        let vsock = self.vsock.iter_mut().map(|vsock| &mut vsock.path);
        let ends = self.consoles.iter_mut().map(|console| &mut console.end);
        let ends = ends.chain(self.serial.iter_mut()).chain(self.debugcon.iter_mut());
        let ends = ends.filter_map(|end| match end {
            SerialConfig::File(path) | SerialConfig::Unix(path) => Some(path),
            SerialConfig::Stdio | SerialConfig::Pty | SerialConfig::Null => None,
        });
        let others = self.control.iter_mut().chain(self.seccomp_policy_dir.iter_mut());
        let others = others.chain(self.agent_secret.iter_mut());
        let shares = self.shares.iter_mut().filter_map(|share| share.path.as_mut());
        let others = others.chain(self.trace.iter_mut().map(|trace| &mut trace.path));
        let pmems = self.pmems.iter_mut().map(|pmem| &mut pmem.path);
        let pstore = self.pstore.iter_mut().map(|pstore| &mut pstore.path);
        let remotes = self.vhost_user.iter_mut().map(|remote| &mut remote.socket);
        let disks = disks.chain(pmems).chain(pstore).chain(shares).chain(remotes);
        for path in files.chain(disks).chain(vsock).chain(ends).chain(others) {
            *path = folder.join(&*path);
        }
    }
}

fn join<T>(mut first: Vec<T>, second: Vec<T>) -> Vec<T> {
    first.extend(second);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_values_win_and_lists_append() {
        let file = MachineOptions {
            kernel: Some("a".into()),
            cmdline: vec!["quiet".into()],
            cpus: Some(CpuCount::ONE),
            hugepages: Some(true),
            disks: vec![DiskConfig::new("a.img")],
            ..MachineOptions::default()
        };
        let flags = MachineOptions {
            kernel: Some("b".into()),
            cmdline: vec!["panic=-1".into()],
            hugepages: Some(false),
            disks: vec![DiskConfig::new("b.img")],
            ..MachineOptions::default()
        };
        let both = file.overlay(flags);
        assert_eq!(both.kernel, Some("b".into()));
        assert_eq!(both.cmdline, ["quiet", "panic=-1"]);
        assert_eq!(both.cpus, Some(CpuCount::ONE));
        assert_eq!(both.hugepages, Some(false));
        assert_eq!(both.disks, [DiskConfig::new("a.img"), DiskConfig::new("b.img")]);
    }
}
