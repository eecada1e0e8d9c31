//! What runs inside the bed: the initramfs of the emulated host, and the initrd and root disks of
//! the stock guest.

use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use initramfs::Archive;

use super::assets::Assets;
use super::modules::ModuleTree;
use super::tree;
use crate::project;

pub(crate) const HOST_INIT: &str = include_str!("scripts/host-init.sh");
pub(crate) const GUEST_INITRD: &str = include_str!("scripts/guest-initrd.sh");
pub(crate) const GUEST_ACT: &str = include_str!("scripts/guest-act.sh");

/// What the emulated host loads, in this order. 9p comes with its transport; the KVM of AMD is what
/// TCG can emulate.
const HOST_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "9pnet",
    "9p",
    "9pnet_virtio",
    "9pnet_fd",
    "irqbypass",
    "kvm",
    "ccp",
    "kvm-amd",
    "tun",
    "vsock",
    "vhost",
    "vhost_vsock",
    "tap",
    "vhost_net",
    "virtio_net",
    "loop",
    "ext4",
];

/// Drivers in the guest's initrd: those of its disk and of the panic device, and those that
/// `bed.modules=` may ask for.
const GUEST_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "pvpanic-mmio",
    "pvpanic-pci",
    "virtio_net",
    "virtio_console",
    "virtio-rng",
    "virtio_balloon",
    "virtio_pmem",
    "nd_pmem",
    "virtiofs",
    "overlay",
    "vmw_vsock_virtio_transport",
    "wdat_wdt",
    "button",
    "evdev",
];

/// The small root disk: enough for busybox and what a test writes.
const DISK_SIZE: &str = "64M";
/// The large root disk: the whole tree and room for load generators.
const TOOLS_DISK_SIZE: &str = "1G";

/// Writes the initramfs of the emulated host: the tree, a few modules, and the guest's images, so
/// that a restored host has them in memory.
pub(crate) fn host_initramfs(assets: &Assets) -> Result<()> {
    let modules = ModuleTree::open(&assets.host_modules())?;
    let copied = assets.work("host-modules");
    tree::clear(&copied)?;
    modules.copy(HOST_MODULES, &copied)?;

    let path = assets.host_initramfs();
    let out = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(out));
    archive.tree(&assets.tree(), "")?;
    // The tree's lib is a link to usr/lib.
    archive.tree(&copied.join("lib"), "usr/lib")?;
    archive.file("init", 0o755, HOST_INIT.as_bytes())?;
    archive.file("etc/bed-modules", 0o644, (HOST_MODULES.join("\n") + "\n").as_bytes())?;
    archive.device("dev/console", (5, 1))?;
    for image in [assets.vmlinux(), assets.bzimage(), assets.initrd(), assets.disk()] {
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("bed/{name}"), 0o644, &fs::read(&image)?)?;
    }
    archive.finish()?;
    tree::remove(&copied)
}

/// Writes the guest's initrd.
pub(crate) fn guest_initrd(assets: &Assets) -> Result<()> {
    let folder = assets.work("guest-initrd");
    tree::clear(&folder)?;
    small_tree(assets, &folder)?;
    ModuleTree::open(&assets.guest_modules())?.copy(GUEST_MODULES, &folder)?;
    script(&folder.join("init"), GUEST_INITRD)?;

    let path = assets.initrd();
    let out = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(out));
    archive.tree(&folder, "")?;
    archive.device("dev/console", (5, 1))?;
    archive.finish()?;
    tree::remove(&folder)
}

/// Makes the guest's two root disks.
pub(crate) fn guest_disks(assets: &Assets) -> Result<()> {
    let folder = assets.work("guest-disk");
    tree::clear(&folder)?;
    small_tree(assets, &folder)?;
    for applet in ["sh", "ls", "cat", "sync", "dd", "md5sum", "sha256sum", "mount", "umount"] {
        symlink("busybox", folder.join("bin").join(applet))?;
    }
    symlink("../bed/act", folder.join("sbin/init"))?;
    ext4(&folder, &assets.disk(), DISK_SIZE)?;
    tree::remove(&folder)?;

    // The tree becomes a guest's for a moment, instead of a copy of all of it.
    let tree_folder = assets.tree();
    script(&tree_folder.join("bed/act"), GUEST_ACT)?;
    let init = tree_folder.join("usr/sbin/init");
    symlink("/bed/act", &init).context("cannot make the disk's init")?;
    let made = ext4(&tree_folder, &assets.tools_disk(), TOOLS_DISK_SIZE);
    fs::remove_file(init)?;
    fs::remove_file(tree_folder.join("bed/act"))?;
    made
}

/// The few files that a guest of busybox alone is made of.
fn small_tree(assets: &Assets, folder: &Path) -> Result<()> {
    for name in ["bin", "sbin", "bed", "dev", "proc", "sys", "tmp", "run", "root", "mnt", "etc"] {
        fs::create_dir_all(folder.join(name))?;
    }
    fs::copy(assets.tree().join("usr/bin/busybox"), folder.join("bin/busybox"))
        .context("the tree has no busybox")?;
    symlink("busybox", folder.join("bin/modprobe"))?;
    script(&folder.join("bed/act"), GUEST_ACT)
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Makes an ext4 image of a folder, which needs no root.
fn ext4(folder: &Path, image: &Path, size: &str) -> Result<()> {
    let _ = fs::remove_file(image);
    let mut mke2fs = project::program("mke2fs");
    mke2fs
        .args(["-q", "-t", "ext4", "-E", "root_owner=0:0", "-d"])
        .arg(folder)
        .arg(image)
        .arg(size);
    project::output(&mut mke2fs).map(drop)
}
