//! The bed's kernels, trees and images: downloaded once, built once, kept under `target/bed`.
//!
//! ```text
//!   assets/packages.json   which packages, at which versions     ── from apt, asked once
//!          debs/*.deb
//!          built           hash of packages.json and recipes     ── rebuilt when it differs
//!          host-kernel  host.cpio  host/lib/modules              the emulated host
//!          tree/                                                 its Debian user space
//!          vmlinux  bzImage  initrd.cpio  disk.img  tools.img  guest/lib/modules
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{images, kernel, packages, tree};
use crate::project;

/// Debian's kernel with everything: the cloud kernel has no 9p.
const HOST_KERNEL: &str = "linux-image-amd64";
/// The stock kernel that guests boot.
const GUEST_KERNEL: &str = "linux-image-cloud-amd64";

/// What turns packages into images; when this text changes, images are built anew.
const RECIPES: &[&str] = &[
    include_str!("assets.rs"),
    include_str!("images.rs"),
    include_str!("tree.rs"),
    include_str!("modules.rs"),
    include_str!("../../../initramfs/src/archive.rs"),
    include_str!("../../../initramfs/src/modules.rs"),
    include_str!("kernel.rs"),
    images::HOST_INIT,
    images::GUEST_INITRD,
    images::GUEST_ACT,
];

/// The packages that the bed is made of.
#[derive(Serialize, Deserialize)]
struct Packages {
    /// What was asked for; another list asks apt again.
    request: Vec<String>,
    host_kernel: String,
    guest_kernel: String,
    /// File names under `debs/`, by package.
    files: BTreeMap<String, String>,
}

/// The folder of all assets.
pub(crate) struct Assets {
    folder: PathBuf,
    identity: String,
}

impl Assets {
    /// Downloads and builds what is not there yet.
    pub(crate) fn ensure() -> Result<Self> {
        let folder = project::bed().join("assets");
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let lock = File::create(folder.join("lock"))?;
        lock.lock().context("cannot lock the bed's assets")?;
        let packages = ensure_packages(&folder).context("cannot get the bed's packages")?;
        let identity = identity(&packages)?;
        let assets = Self { folder, identity };
        let stamp = assets.folder.join("built");
        if fs::read_to_string(&stamp).ok().as_deref() != Some(&assets.identity) {
            let _ = fs::remove_file(&stamp);
            packages::ensure_programs(packages::BUILD_TOOLS)?;
            let start = Instant::now();
            eprintln!("bed: building kernels and images");
            assets.build(&packages).context("cannot build the bed's images")?;
            fs::write(&stamp, &assets.identity)?;
            eprintln!("bed: built in {:.1} s", start.elapsed().as_secs_f64());
        }
        Ok(assets)
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// Changes whenever any asset does.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    fn build(&self, packages: &Packages) -> Result<()> {
        let deb = |name: &str| -> Result<PathBuf> {
            let file = packages.files.get(name).with_context(|| format!("no file for {name}"))?;
            Ok(self.folder.join("debs").join(file))
        };
        for (name, base) in [
            (&packages.host_kernel, self.host_modules()),
            (&packages.guest_kernel, self.guest_modules()),
        ] {
            tree::clear(&base)?;
            packages::unpack(&deb(name)?, &base)?;
        }
        kernel::extract(&boot_image(&self.host_modules())?, &self.host_kernel())?;
        let bzimage = boot_image(&self.guest_modules())?;
        kernel::extract(&bzimage, &self.vmlinux())?;
        fs::copy(bzimage, self.bzimage())?;

        let mut debs = BTreeMap::new();
        for name in packages.files.keys().filter(|name| !name.starts_with("linux-image-")) {
            debs.insert(name.clone(), deb(name)?);
        }
        tree::build(&debs, &self.tree(), &self.work("spare"))?;
        images::guest_initrd(self)?;
        images::guest_disks(self)?;
        images::host_initramfs(self)
    }

    pub(crate) fn host_kernel(&self) -> PathBuf {
        self.folder.join("host-kernel")
    }

    pub(crate) fn host_initramfs(&self) -> PathBuf {
        self.folder.join("host.cpio")
    }

    pub(crate) fn host_modules(&self) -> PathBuf {
        self.folder.join("host")
    }

    pub(crate) fn guest_modules(&self) -> PathBuf {
        self.folder.join("guest")
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    pub(crate) fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    pub(crate) fn bzimage(&self) -> PathBuf {
        self.folder.join("bzImage")
    }

    pub(crate) fn initrd(&self) -> PathBuf {
        self.folder.join("initrd.cpio")
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.folder.join("disk.img")
    }

    pub(crate) fn tools_disk(&self) -> PathBuf {
        self.folder.join("tools.img")
    }

    /// A folder for the time of the build.
    pub(crate) fn work(&self, name: &str) -> PathBuf {
        self.folder.join("work").join(name)
    }
}

fn ensure_packages(folder: &Path) -> Result<Packages> {
    let mut request: Vec<String> = tree::PACKAGES.iter().map(|&name| name.to_owned()).collect();
    request.extend([HOST_KERNEL.to_owned(), GUEST_KERNEL.to_owned()]);
    let list = folder.join("packages.json");
    if let Some(packages) = fs::read(&list)
        .ok()
        .and_then(|text| serde_json::from_slice::<Packages>(&text).ok())
        .filter(|packages| packages.request == request)
        .filter(|packages| packages.files.values().all(|f| folder.join("debs").join(f).exists()))
    {
        return Ok(packages);
    }
    let host_kernel = packages::resolve_kernel(HOST_KERNEL)?;
    let guest_kernel = packages::resolve_kernel(GUEST_KERNEL)?;
    let mut names = packages::closure(tree::PACKAGES)?;
    names.extend([host_kernel.clone(), guest_kernel.clone()]);
    let debs = packages::download(&names, &folder.join("debs"))?;
    let file_name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into();
    let files = names.into_iter().zip(debs.iter().map(file_name)).collect();
    let packages = Packages { request, host_kernel, guest_kernel, files };
    fs::write(list, serde_json::to_vec_pretty(&packages)?)?;
    Ok(packages)
}

fn identity(packages: &Packages) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(packages)?.hash(&mut hasher);
    RECIPES.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// The kernel of an unpacked kernel package.
fn boot_image(base: &Path) -> Result<PathBuf> {
    let boot = base.join("boot");
    for entry in fs::read_dir(&boot).with_context(|| format!("cannot read {}", boot.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("vmlinuz-") {
            return Ok(entry.path());
        }
    }
    anyhow::bail!("{} holds no kernel", boot.display())
}
