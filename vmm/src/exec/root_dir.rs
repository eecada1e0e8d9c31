//! A machine whose root is a directory of the host, with the init that is in it.
//!
//! ```text
//!   kernel ─▶ agent in an initial RAM disk: modules, virtio-fs, overlay ─▶ /sbin/init of the directory
//! ```
//!
//! Kernel and modules come from the directory, too, where nobody names others.

use std::path::PathBuf;
use std::str::FromStr;

use super::first_root::Contents;
use super::kernels::{self, KernelModules};
use super::root::{self, Root, Writes};
use super::{Error, agent, devices, first_root};
use crate::config::{MachineOptions, OwnerMap};
use crate::folder::Folder;

/// Drivers without which there is no root, and the one that tells of panics.
const MODULES: [&str; 3] = ["virtio_pci", "pvpanic-mmio", "pvpanic-pci"];

/// A directory to boot from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootDir {
    /// Where it is.
    pub path: PathBuf,
    /// What becomes of writes.
    pub writes: Writes,
}

/// A directory that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RootDirError {
    /// No path.
    #[error("a directory is wanted, with `,rw` behind it where the guest is to write to it")]
    Empty,
}

impl FromStr for RootDir {
    type Err = RootDirError;

    fn from_str(text: &str) -> Result<Self, RootDirError> {
        let (path, writes) = match text.strip_suffix(",rw") {
            Some(path) => (path, Writes::Kept),
            None => (text, Writes::Discarded),
        };
        if path.is_empty() {
            return Err(RootDirError::Empty);
        }
        Ok(Self { path: path.into(), writes })
    }
}

/// Completes a machine that boots from a directory. The folder has what it boots with, as long as it lives.
pub fn boot_from(root: &RootDir, options: &mut MachineOptions) -> Result<BootFiles, Error> {
    let folder = Folder::create().map_err(Error::host("make a private folder"))?;
    let here = std::env::current_dir().map_err(Error::host("find the working folder"))?;
    let path = here.join(&root.path);
    let kernel = match options.kernel.take() {
        Some(kernel) => kernel,
        None => kernels::newest(&path.join("boot"))?,
    };
    // Its own modules, or else the host's, for a kernel that is not from there.
    let own = KernelModules::find(Some(&path.join("lib/modules")), &kernel)?;
    let modules = if own.list().is_some() { own } else { KernelModules::find(None, &kernel)? };
    options.kernel = Some(kernel);
    let wanted = Root::Folder { path, writes: root.writes };
    let program = std::path::Path::new("");
    let plan = root::plan(wanted, Vec::new(), options, modules.list(), &here, program)?;
    if let Some(share) = options.shares.last_mut()
        && rustix::process::geteuid().is_root()
    {
        // A system has more users than one.
        share.uid_map = Some(OwnerMap::same());
        share.gid_map = Some(OwnerMap::same());
    }
    let wanted: Vec<_> =
        MODULES.into_iter().chain(devices(options)).chain(plan.modules.iter().copied()).collect();
    let agent = agent::program()?;
    let contents = Contents {
        agent: &agent.bytes,
        agent_version: &agent.version,
        later: Vec::new(),
        modules: modules.files(&wanted),
        mounts: &plan.mounts,
        before: options.initrd.as_deref(),
        program: None,
        init: Some("/sbin/init"),
    };
    let initramfs = first_root::provide(&contents, &folder.file("initramfs"))
        .map_err(Error::host("write the guest's first root"))?;
    options.initrd = Some(initramfs);
    options.cmdline.insert(0, format!("rdinit={}", first_root::INIT));
    Ok(BootFiles { _folder: folder })
}

/// What a machine boots with; gone with this.
#[derive(Debug)]
pub struct BootFiles {
    _folder: Folder,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_written_to_only_if_that_is_said() {
        let root: RootDir = "rootfs".parse().unwrap();
        assert_eq!((root.path, root.writes), ("rootfs".into(), Writes::Discarded));
        let root: RootDir = "/a,b,rw".parse().unwrap();
        assert_eq!((root.path, root.writes), ("/a,b".into(), Writes::Kept));
        assert_eq!(",rw".parse::<RootDir>(), Err(RootDirError::Empty));
    }
}
