//! What process 1 does before it serves: modules, mounts, the loopback interface, a name.

mod modules;
mod table;

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;

use rustix::mount::MountFlags;

use crate::{crashes, network};
pub(crate) use modules::Later;
pub(crate) use table::Problem;

/// Names the program that takes over when all is mounted; without it the agent stays.
const SUCCESSOR: &str = "/.vmm/init";

/// What the guest is called until somebody else names it.
const HOSTNAME: &str = "vmm";

/// File systems in memory (statfs(2)).
const RAMFS: rustix::fs::FsWord = 0x8584_58f6;
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

struct Mount {
    source: &'static str,
    target: &'static str,
    fstype: &'static str,
    flags: MountFlags,
    data: &'static str,
}

const fn plain(fstype: &'static str, target: &'static str, data: &'static str) -> Mount {
    Mount {
        source: fstype,
        target,
        fstype,
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data,
    }
}

/// Those that the agent itself needs come first.
const MOUNTS: [Mount; 8] = [
    plain("proc", "/proc", ""),
    plain("sysfs", "/sys", ""),
    Mount { flags: MountFlags::NOSUID, ..plain("devtmpfs", "/dev", "mode=0755") },
    Mount {
        flags: MountFlags::NOSUID,
        ..plain("devpts", "/dev/pts", "gid=5,mode=0620,ptmxmode=0666")
    },
    plain("tmpfs", "/dev/shm", "mode=1777"),
    plain("tmpfs", "/tmp", "mode=1777"),
    plain("tmpfs", "/run", "mode=0755"),
    plain("cgroup2", "/sys/fs/cgroup", "nsdelegate"),
];

/// Links that programs expect in /dev.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Who takes over, if somebody does. To be asked before anything is mounted.
pub(crate) fn successor() -> Option<String> {
    fs::read_to_string(SUCCESSOR).ok()
}

/// Mounts what the host has asked for and becomes another program, which finds its root as a kernel leaves it, but
/// with /proc, /sys, /dev and /run mounted. Comes back with the reason if that failed.
pub(crate) fn hand_over(program: &str) -> String {
    mount_all();
    modules::load();
    if let Err(problem) = table::mount() {
        return problem.to_string();
    }
    let error = std::process::Command::new(program).exec();
    format!("cannot start {program}: {error}")
}

/// Makes a system out of a kernel and a root. What is not there is said and done without; the host's own
/// mounts alone have to be. Some modules are left for later.
pub(crate) fn set_up() -> (Result<(), Problem>, Later) {
    mount_all();
    let later = modules::load();
    let mounted = table::mount();
    for (to, link) in LINKS {
        report(link, std::os::unix::fs::symlink(to, link));
    }
    report("reports of crashes", crashes::catch());
    report("the loopback interface", network::loopback_up());
    report("the host name", rustix::system::sethostname(HOSTNAME.as_bytes()).map_err(Into::into));
    (mounted, later)
}

fn mount_all() {
    let in_memory = is_in_memory();
    for mount in MOUNTS.iter().filter(|it| !(in_memory && is_taken(it))) {
        // On a read-only root it has to be there already.
        let _ = fs::create_dir_all(mount.target);
        let data = std::ffi::CString::new(mount.data).unwrap_or_default();
        let result = rustix::mount::mount(
            mount.source,
            mount.target,
            mount.fstype,
            mount.flags,
            Some(data.as_c_str()),
        );
        match result {
            // The kernel mounts /dev itself if it is so configured.
            Err(rustix::io::Errno::BUSY) => {}
            result => report(mount.target, result.map_err(Into::into)),
        }
    }
}

/// Whether the root is the kernel's first one, where all that is written is gone afterwards.
fn is_in_memory() -> bool {
    rustix::fs::statfs("/").is_ok_and(|root| [RAMFS, TMPFS].contains(&root.f_type))
}

/// Whether the host has put something there, such as a command that is in its own /tmp.
fn is_taken(mount: &Mount) -> bool {
    let has_files = || fs::read_dir(mount.target).is_ok_and(|mut files| files.next().is_some());
    mount.fstype == "tmpfs" && has_files()
}

fn report(what: &str, result: io::Result<()>) {
    match result {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => log::warn!("{what}: {error}"),
        _ => {}
    }
}
