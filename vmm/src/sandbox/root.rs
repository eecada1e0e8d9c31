//! An empty root directory, made from nothing: no directory of the host needs to be set aside.

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
};

use super::SandboxError;

/// Makes an empty, read-only tmpfs the root of the calling process's own mount namespace.
pub(super) fn enter_empty_root() -> Result<(), SandboxError> {
    // Nothing done here may travel back to the host's mounts.
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(SandboxError::of("make the mounts private"))?;
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(SandboxError::of("create an empty file system"))?;
    rustix::mount::fsconfig_set_string(&context, "size", "4k")
        .and_then(|()| rustix::mount::fsconfig_set_string(&context, "nr_inodes", "1"))
        .and_then(|()| rustix::mount::fsconfig_create(&context))
        .map_err(SandboxError::of("set up an empty file system"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let empty = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(SandboxError::of("mount an empty file system"))?;
    // pivot_root wants its new root to be attached somewhere; /proc is a directory wherever
    // anything works at all, and covering it in this namespace hurts nobody.
    rustix::mount::move_mount(&empty, "", CWD, "/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(SandboxError::of("attach an empty file system"))?;
    rustix::process::fchdir(&empty).map_err(SandboxError::of("enter an empty root"))?;
    // With both arguments the same, the old root lands on top of the new one and is detached from
    // there, so no directory for it is needed (pivot_root(2), "pivot_root(".", ".")").
    rustix::process::pivot_root(".", ".").map_err(SandboxError::of("change the root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)
        .map_err(SandboxError::of("let go of the old root"))?;
    rustix::process::chdir("/").map_err(SandboxError::of("enter the new root"))
}
