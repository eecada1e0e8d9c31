//! What a guest's root is, and what else is mounted in it: the machine's disks and shared directories,
//! and the table that the agent goes by.
//!
//! ```text
//!   Root::Host      /  and the mounts that belong to it ──virtio-fs, read-only──▶ overlays
//!   Root::Folder    a directory                         ──virtio-fs──▶ overlay, or as it is
//!   Root::Image     a disk                              ──virtio-blk──▶ overlay, or as it is
//!   Root::Memory    the command with its libraries, in the initial RAM disk
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use initramfs::Modules;
use proto::mounts::{Access, Mount};

use super::Error;
use super::host_mounts;
use super::image;
use crate::config::{DiskConfig, MachineOptions, ShareConfig, ShareTag};

/// What some kernels have as a module, and others in another form.
const OPTIONAL: [&str; 1] = ["crc32c_generic"];

/// What the root is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// The host's own where the kernel can have it, else in memory.
    Default,
    /// In memory: the command with its libraries, or what an initial RAM disk has.
    Memory,
    /// A directory of the host.
    Folder {
        /// The directory.
        path: PathBuf,
        /// What becomes of writes.
        writes: Writes,
    },
    /// The first disk. Where none is named, the machine's own options have it.
    Image {
        /// The image.
        path: Option<PathBuf>,
        /// What becomes of writes.
        writes: Writes,
    },
}

/// What becomes of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// They are gone with the guest.
    Discarded,
    /// They reach the directory or the image.
    Kept,
}

impl Writes {
    fn access(self) -> Access {
        match self {
            Self::Discarded => Access::Overlay,
            Self::Kept => Access::ReadWrite,
        }
    }
}

/// A directory of the host in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFolder {
    /// The directory.
    pub host: PathBuf,
    /// Where the guest has it.
    pub guest: PathBuf,
    /// What becomes of writes: refused, or kept.
    pub access: Access,
}

/// What the guest mounts, and what that takes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) mounts: Vec<Mount>,
    /// Modules for the mounts, in an order in which they may be loaded.
    pub(super) modules: Vec<&'static str>,
    /// The folder in which commands start if nobody says otherwise.
    pub(super) folder: Option<PathBuf>,
    /// Programs are found where they are here.
    pub(super) is_host: bool,
    /// The command and its libraries go into the initial RAM disk.
    pub(super) in_memory: bool,
}

/// Completes the machine by what its root takes. `modules` are the kernel's, if they are known; `program` is
/// the command's first word.
pub(super) fn plan(
    root: Root,
    folders: Vec<SharedFolder>,
    options: &mut MachineOptions,
    modules: Option<&Modules>,
    here: &Path,
    program: &Path,
) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    let can_share = |modules: &Modules| modules.has("virtiofs") && modules.has("overlay");
    match root {
        Root::Image { path, writes } => {
            if let Some(path) = path {
                let read_only = writes == Writes::Discarded;
                options.root = Some(DiskConfig { read_only, ..DiskConfig::new(here.join(path)) });
            }
            if let Some(disk) = &options.root {
                plan.image(disk, writes)?;
            }
        }
        Root::Folder { path, writes } => {
            plan.share(options, &here.join(path), Path::new("/"), writes.access())?;
        }
        Root::Default if options.initrd.is_none() && modules.is_some_and(can_share) => {
            plan.host(options, here, program)?;
        }
        Root::Default | Root::Memory => plan.in_memory = options.initrd.is_none(),
    }
    for SharedFolder { host, guest, access } in folders {
        plan.share(options, &here.join(host), &guest, access)?;
    }
    if let Some(modules) = modules {
        let lacks = |name: &&&str| !modules.has(name) && !OPTIONAL.contains(*name);
        if let Some(name) = plan.modules.iter().find(lacks) {
            return Err(Error::NoModule { name });
        }
    }
    Ok(plan)
}

impl Plan {
    fn host(
        &mut self,
        options: &mut MachineOptions,
        here: &Path,
        program: &Path,
    ) -> Result<(), Error> {
        self.share(options, Path::new("/"), Path::new("/"), Access::Overlay)?;
        let table = fs::read_to_string("/proc/self/mountinfo")
            .map_err(Error::host("read the table of mounts"))?;
        let host_mounts::Found { shared, others } = {
            // A name alone is looked up in PATH.
            let of_program = program.parent().filter(|folder| !folder.as_os_str().is_empty());
            let of_program = of_program.map(|folder| normal(&here.join(folder)));
            let needed: Vec<_> =
                [Some(here), of_program.as_deref()].into_iter().flatten().collect();
            host_mounts::find(&table, &needed)
        };
        // In the order of their names, so that each comes after those that it is in.
        for folder in shared.iter().chain(&others).collect::<BTreeSet<_>>() {
            // Files can be mounted too, and folders can be out of reach.
            if !folder.is_dir() {
                continue;
            }
            if shared.contains(folder) {
                self.share(options, folder, folder, Access::Overlay)?;
            } else {
                self.mount(b"none".to_vec(), folder, "tmpfs", Access::ReadOnly);
            }
        }
        self.folder = Some(here.to_owned());
        self.is_host = true;
        Ok(())
    }

    fn share(
        &mut self,
        options: &mut MachineOptions,
        host: &Path,
        guest: &Path,
        access: Access,
    ) -> Result<(), Error> {
        let name = format!("vmm.{}", options.shares.len());
        let read_only = access != Access::ReadWrite;
        let tag = ShareTag::try_from(name.clone())?;
        options.shares.push(ShareConfig { read_only, ..ShareConfig::new(host, tag) });
        self.needs("virtiofs");
        self.mount(name.into_bytes(), guest, "virtiofs", access);
        Ok(())
    }

    fn image(&mut self, disk: &DiskConfig, writes: Writes) -> Result<(), Error> {
        let found = image::examine(&disk.path)
            .map_err(|source| Error::Read { path: disk.path.clone(), source })?
            .ok_or_else(|| Error::NoFileSystem { path: disk.path.clone() })?;
        self.needs("virtio_blk");
        for module in found.modules() {
            self.needs(module);
        }
        let partition = found.partition.map(|number| number.to_string()).unwrap_or_default();
        let source = format!("/dev/vda{partition}");
        let access = if disk.read_only { Access::Overlay } else { writes.access() };
        self.mount(source.into_bytes(), Path::new("/"), found.fstype, access);
        Ok(())
    }

    fn mount(&mut self, source: Vec<u8>, target: &Path, fstype: &str, access: Access) {
        if access == Access::Overlay {
            self.needs("overlay");
        }
        let target = target.as_os_str().as_bytes().to_vec();
        self.mounts.push(Mount { source, target, fstype: fstype.to_owned(), access });
    }

    fn needs(&mut self, module: &'static str) {
        if !self.modules.contains(&module) {
            self.modules.push(module);
        }
    }
}

/// A path without `.`, and without `..` as far as it goes: mounts are found by their names.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(normal.pop()),
            part => normal.push(part),
        }
    }
    normal
}
