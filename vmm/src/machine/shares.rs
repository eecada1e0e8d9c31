//! Shared directories: opened so that nothing leads out of them.
//!
//! ```text
//!   directory ──open_tree──► a mount of its own, attached nowhere ──► the server's only descriptor
//! ```
//!
//! Such a mount has no way up, whatever becomes of the process that has it, and the kernel itself
//! keeps devices, programs and links in it from having any effect, and read-only ones from being
//! written. It takes a privilege (`CAP_SYS_ADMIN`). Without it the server has the directory as it is,
//! and it is the server that stays inside.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use devices::virtio::control::{Change, SharedDirectory, SharedFd};
use devices::virtio::fs::{Acl, FsOptions, FsParts, Writeback};
use devices::virtio::p9::{P9Options, P9Parts};
use devices::virtio::parts::DeviceParts;
use fileserver::{Access, Ids};
use rustix::fs::{Mode, OFlags};

use super::Error;
use super::backends::OpenDevice;
use crate::config::{ShareConfig, ShareProtocol};
use crate::warden::{Privileges, Users};

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Opens a directory to share it.
pub(super) fn open(share: &ShareConfig) -> Result<OpenDevice, Error> {
    match share.protocol {
        ShareProtocol::Fs => open_fs(share),
        ShareProtocol::P9 => open_p9(share),
    }
}

fn open_p9(share: &ShareConfig) -> Result<OpenDevice, Error> {
    let path = share.path.clone().unwrap_or_default();
    let failed = |source| Error::Share { path: path.clone(), source };
    let access = access(share);
    let acl = if share.acl { p9::Acl::On } else { p9::Acl::Off };
    let options = P9Options { ids: share.ids(), acl, access, ..P9Options::new(share.tag.as_str()) };
    let directory = open_directory(&path, access).map_err(failed)?;
    let parts =
        P9Parts::new(directory, options).map_err(|error| failed(io::Error::other(error)))?;
    Ok(OpenDevice::new(format!("share {}", path.display()), DeviceParts::P9(parts)))
}

fn access(share: &ShareConfig) -> Access {
    if share.read_only { Access::ReadOnly } else { Access::ReadWrite }
}

fn open_fs(share: &ShareConfig) -> Result<OpenDevice, Error> {
    let options = FsOptions {
        ids: share.ids(),
        queues: share.queues.get(),
        cache: share.cache,
        writeback: if share.writeback { Writeback::On } else { Writeback::Off },
        acl: if share.acl { Acl::On } else { Acl::Off },
        read_only: share.read_only,
        ..FsOptions::new(share.tag.as_str())
    };
    let Some(path) = &share.path else {
        let parts = FsParts::empty(options).map_err(|error| Error::Share {
            path: PathBuf::new(),
            source: io::Error::other(error),
        })?;
        let name = format!("share {}", share.tag.as_str());
        return Ok(OpenDevice::new(name, DeviceParts::Fs(parts)));
    };
    let failed = |source| Error::Share { path: path.clone(), source };
    let directory = open_directory(path, access(share)).map_err(failed)?;
    let parts =
        FsParts::new(directory, options).map_err(|error| failed(io::Error::other(error)))?;
    Ok(OpenDevice::new(format!("share {}", path.display()), DeviceParts::Fs(parts)))
}

/// A change by which one more directory is shared.
pub(super) fn grant(path: &Path, name: String, access: Access) -> io::Result<Change> {
    let directory = SharedFd::new(open_directory(path, access)?);
    Ok(Change::Share(SharedDirectory { name, access, directory }))
}

/// Whom the sandbox of a machine with these directories has to know.
pub(super) fn users(shares: &[ShareConfig]) -> Users {
    let mapped = shares.iter().any(|share| privileges(&share.ids()) == Privileges::Owners);
    if mapped { Users::All } else { Users::One }
}

/// What it takes to serve such files.
pub(crate) fn privileges(ids: &Ids) -> Privileges {
    match ids {
        Ids::Squashed => Privileges::None,
        Ids::Mapped { .. } => Privileges::Owners,
    }
}

/// What it takes to serve a device.
pub(super) fn device_privileges(device: &DeviceParts) -> Privileges {
    match device {
        DeviceParts::Fs(parts) => privileges(parts.ids()),
        DeviceParts::P9(parts) => privileges(parts.ids()),
        _ => Privileges::None,
    }
}

/// Opens a directory, as a mount of its own where that is allowed.
pub(crate) fn open_directory(path: &Path, access: Access) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Also says what is no directory, which can be a mount as well.
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    Ok(own_mount(path, access).unwrap_or_else(|error| {
        log::debug!("{} is shared without a mount of its own: {error}", path.display());
        directory
    }))
}

fn own_mount(path: &Path, access: Access) -> io::Result<OwnedFd> {
    /// linux/mount.h and linux/fcntl.h
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    const AT_RECURSIVE: libc::c_uint = 0x8000;
    let name = CString::new(path.as_os_str().as_bytes())?;
    let flags = OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC as libc::c_uint;
    // SAFETY: the name ends with a zero and lives during the call.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, name.as_ptr(), flags) };
    if tree < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call made this descriptor for nobody else.
    let tree = unsafe { OwnedFd::from_raw_fd(tree as libc::c_int) };
    let mut set = libc::MOUNT_ATTR_NOSUID
        | libc::MOUNT_ATTR_NODEV
        | libc::MOUNT_ATTR_NOEXEC
        | libc::MOUNT_ATTR_NOSYMFOLLOW;
    if access == Access::ReadOnly {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: the kernel reads so many bytes of the attributes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH as libc::c_uint | AT_RECURSIVE,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(tree)
}
