//! What sandboxed device processes are locked in with.

use std::fs;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use super::child;
use super::report::Check;

/// All namespaces of a sandbox.
const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// `LANDLOCK_CREATE_RULESET_VERSION`: asks for the version instead of making rules.
const LANDLOCK_VERSION: libc::c_uint = 1;

/// `UFFD_USER_MODE_ONLY`: what an ordinary user may have.
const UFFD_USER_MODE_ONLY: libc::c_int = 1;

pub(super) fn checks() -> Vec<Check> {
    vec![namespaces(), cgroup(), seccomp(), landlock(), userfaultfd()]
}

fn namespaces() -> Check {
    let name = "namespaces";
    let refused = |what: &str, error: &dyn std::fmt::Display| {
        Check::missing(name, format!("{what}: {error}")).hint(namespace_hint())
    };
    match child::attempt(unshare) {
        Err(error) => return refused("cannot try", &error),
        Ok(Err(errno)) => return refused("cannot make them", &io::Error::from(errno)),
        Ok(Ok(())) => {}
    }
    // Some hosts let everybody make a user namespace and give no capabilities inside.
    match child::attempt(unshare_and_mount) {
        Err(error) => refused("cannot try a mount in them", &error),
        Ok(Err(errno)) => {
            refused("made, but no mount is permitted in them", &io::Error::from(errno))
        }
        Ok(Ok(())) => Check::ok(name, "user, pid, mount, net, ipc, uts: made and used in a child"),
    }
}

fn unshare() -> child::Outcome {
    // SAFETY: changes the namespaces of this child only.
    check(unsafe { libc::unshare(NAMESPACES) })
}

fn unshare_and_mount() -> child::Outcome {
    unshare()?;
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    let none = c"none".as_ptr();
    // SAFETY: the strings are constants; it changes the mount namespace of this child only, and
    // the child has one of its own.
    check(unsafe { libc::mount(none, c"/".as_ptr(), none, flags, std::ptr::null()) })
}

fn check(result: libc::c_int) -> child::Outcome {
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn namespace_hint() -> &'static str {
    let value = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    if value("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return "as root: sysctl kernel.unprivileged_userns_clone=1";
    }
    if value("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        return "as root: sysctl user.max_user_namespaces=10000";
    }
    if value("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile";
    }
    "a container runtime forbids them, or the kernel is built without; run as root or outside"
}

/// Makes a control group below our own and removes it.
fn cgroup() -> Check {
    let name = "cgroup";
    let Some(own) = own_cgroup() else {
        return Check::warn(name, "no version 2 hierarchy at /sys/fs/cgroup")
            .hint("boot with systemd.unified_cgroup_hierarchy=1 to limit what machines use");
    };
    let group = own.join(format!("vmm-doctor-{}", std::process::id()));
    match fs::create_dir(&group).and_then(|()| fs::remove_dir(&group)) {
        Ok(()) => Check::ok(name, format!("version 2, groups can be made in {}", own.display())),
        Err(error) => {
            Check::warn(name, format!("cannot make a group in {}: {error}", own.display())).hint(
                "run below `systemd-run --user --scope -p Delegate=yes` to limit what machines use",
            )
        }
    }
}

fn own_cgroup() -> Option<PathBuf> {
    let list = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = list.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = PathBuf::from("/sys/fs/cgroup").join(own);
    folder.join("cgroup.procs").exists().then_some(folder)
}

fn seccomp() -> Check {
    let name = "seccomp";
    let missing: Vec<_> = [
        (libc::SECCOMP_RET_KILL_PROCESS, "kill-process"),
        (libc::SECCOMP_RET_LOG, "log"),
        (libc::SECCOMP_RET_USER_NOTIF, "user-notify"),
    ]
    .iter()
    .filter(|(action, _)| !seccomp_action(*action))
    .map(|(_, name)| *name)
    .collect();
    match missing.as_slice() {
        [] => Check::ok(name, "filters, with kill-process, log and user-notify"),
        [_, _, _] => Check::missing(name, io::Error::last_os_error().to_string())
            .hint("this kernel is built without it, or a filter hides it"),
        some => Check::warn(name, format!("filters, without {}", some.join(", ")))
            .hint("use Linux 5.0 or newer"),
    }
}

fn seccomp_action(action: u32) -> bool {
    // SAFETY: the kernel reads four bytes at the address, which `action` has.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action)
    };
    result == 0
}

fn landlock() -> Check {
    let name = "landlock";
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel reads no memory.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, LANDLOCK_VERSION)
    };
    match version {
        1.. => Check::ok(name, format!("version {version}")),
        _ => Check::warn(name, io::Error::last_os_error().to_string()).hint(
            "boot with lsm=landlock,... on Linux 5.13 or newer; sandboxes then have one wall more",
        ),
    }
}

fn userfaultfd() -> Check {
    let name = "userfaultfd";
    // SAFETY: makes a file descriptor, refers to no memory.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | UFFD_USER_MODE_ONLY) };
    if fd < 0 {
        return Check::warn(name, io::Error::last_os_error().to_string())
            .hint("machines cannot be swapped out or restored lazily");
    }
    // SAFETY: the descriptor was just made and has no other owner.
    drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd as i32) });
    Check::ok(name, "there, for faults of user code")
}
