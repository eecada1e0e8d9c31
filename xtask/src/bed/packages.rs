//! Debian packages: what the bed downloads and what it installs.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::project::{self, find_program};

/// A program that must be on this machine, and the package that has it.
#[derive(Clone, Copy)]
pub(crate) struct Needed {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

/// What building the bed's kernels, trees and disk images takes.
pub(crate) const BUILD_TOOLS: &[Needed] = &[
    Needed { program: "dpkg-deb", package: "dpkg" },
    Needed { program: "tar", package: "tar" },
    Needed { program: "xz", package: "xz-utils" },
    Needed { program: "lz4", package: "lz4" },
    Needed { program: "mke2fs", package: "e2fsprogs" },
    Needed { program: "depmod", package: "kmod" },
];

/// What running the emulated host takes.
pub(crate) const EMULATOR: &[Needed] = &[
    Needed { program: "qemu-system-x86_64", package: "qemu-system-x86" },
    Needed { program: "setpriv", package: "util-linux" },
];

/// Dependencies that packages name but that no program we run needs: interpreters and what only
/// maintainer scripts use. They would be most of the download.
const UNWANTED: &[&str] = &[
    "perl",
    "libperl",
    "python",
    "libpython",
    "debconf",
    "cdebconf",
    "libdebian-installer",
    "dpkg",
    "adduser",
    "install-info",
    "init-system-helpers",
    "usrmerge",
    "usr-is-merged",
    "libslang",
    "libnewt",
    "libtextwrap",
    "mime-support",
    "media-types",
    "mailcap",
    "gawk",
    "original-awk",
    "libfile-find",
    "libnumber-compare",
    "libtext-glob",
    "libdb5",
    "libsqlite3",
    "dmsetup",
    "passwd",
];

/// Programs are missing and cannot be installed by this user.
#[derive(Debug)]
pub(crate) struct Missing(String);

impl Missing {
    pub(crate) fn new(what: &str) -> Self {
        Self(what.to_owned())
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// Makes sure that programs are there: installs their packages when root, else says how to.
pub(crate) fn ensure_programs(needed: &[Needed]) -> Result<()> {
    let packages: BTreeSet<&str> = needed
        .iter()
        .filter(|need| find_program(need.program).is_none())
        .map(|need| need.package)
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.iter().copied().collect::<Vec<_>>().join(" ");
    if find_program("apt-get").is_none() {
        return Err(
            Missing(format!("there is no apt-get to install these packages: {list}")).into()
        );
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Missing(format!(
            "these packages are missing: {list}
  hint: sudo apt-get install -y \
             --no-install-recommends {list}"
        ))
        .into());
    }
    eprintln!("bed: installing {list}");
    ensure_lists(packages.iter().next().copied().unwrap_or_default())?;
    let words: Vec<&str> = packages.iter().copied().collect();
    install(&words).or_else(|first| {
        // A machine with a newer qemu-utils than the archive's conflicts with its QEMU.
        if packages.contains("qemu-system-x86") {
            eprintln!("bed: {first:#}; trying again with the archive's qemu-utils");
            let release = debian_release().unwrap_or_else(|| "bookworm".into());
            let utils = format!("qemu-utils/{release}");
            install(&[words.as_slice(), &[utils.as_str()]].concat())
        } else {
            Err(first)
        }
    })
}

fn install(packages: &[&str]) -> Result<()> {
    let mut apt = apt_get();
    apt.args(["install", "-y", "--no-install-recommends", "--allow-downgrades"]).args(packages);
    project::output(&mut apt).map(drop)
}

fn debian_release() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
}

pub(super) fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "-q",
        "-o",
        "Acquire::Retries=3",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]);
    command
}

/// Fetches apt's package lists when they do not know `package`.
fn ensure_lists(package: &str) -> Result<()> {
    if knows(package)? {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!("apt knows no package {package}\n  hint: sudo apt-get update");
    }
    eprintln!("bed: fetching package lists");
    project::output(apt_get().arg("update")).map(drop).context("cannot fetch package lists")
}

fn knows(package: &str) -> Result<bool> {
    let policy = project::output(Command::new("apt-cache").args(["policy", package]))
        .context("apt is needed for the bed's kernels and tools")?;
    let policy = String::from_utf8_lossy(&policy);
    Ok(policy.contains("Candidate:") && !policy.contains("Candidate: (none)"))
}

/// The package that a meta package such as `linux-image-amd64` stands for now.
pub(crate) fn resolve_kernel(meta: &str) -> Result<String> {
    ensure_lists(meta)?;
    let text = project::output(Command::new("apt-cache").args([
        "depends",
        "--no-recommends",
        "--no-suggests",
        meta,
    ]))?;
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned)
        .with_context(|| format!("the package {meta} names no kernel image"))
}

/// The packages and everything that their programs need at run time.
pub(crate) fn closure(packages: &[&str]) -> Result<Vec<String>> {
    for package in packages {
        ensure_lists(package)?;
    }
    let mut command = Command::new("apt-cache");
    command.args([
        "depends",
        "--recurse",
        "--no-recommends",
        "--no-suggests",
        "--no-conflicts",
        "--no-breaks",
        "--no-replaces",
        "--no-enhances",
    ]);
    let text = project::output(command.args(packages))?;
    let names: BTreeSet<String> = String::from_utf8_lossy(&text)
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_alphanumeric()))
        .filter(|name| !name.contains(':'))
        .filter(|name| {
            packages.contains(name) || !UNWANTED.iter().any(|prefix| name.starts_with(prefix))
        })
        .map(str::to_owned)
        .collect();
    Ok(names.into_iter().collect())
}

/// Downloads packages into `folder` (those that are there stay) and returns their files.
pub(crate) fn download(packages: &[String], folder: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    let missing: Vec<&String> =
        packages.iter().filter(|name| matches!(find_deb(folder, name), Ok(None))).collect();
    if !missing.is_empty() {
        eprintln!("bed: downloading {} packages", missing.len());
        let mut apt = apt_get();
        // apt's own user cannot write here; without a sandbox user it does not try to.
        apt.args(["-o", "APT::Sandbox::User=root", "download"]).args(missing);
        apt.current_dir(folder).stderr(Stdio::piped());
        project::output(&mut apt).context("cannot download packages\n  hint: apt-get update")?;
    }
    packages
        .iter()
        .map(|name| {
            find_deb(folder, name)?
                .with_context(|| format!("apt downloaded no file for the package {name}"))
        })
        .collect()
}

fn find_deb(folder: &Path, package: &str) -> Result<Option<PathBuf>> {
    let prefix = format!("{package}_");
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&prefix) && Path::new(&*name).extension().is_some_and(|e| e == "deb") {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Unpacks a package over `tree`, following the folder links that are there (`/bin` → `usr/bin`).
pub(crate) fn unpack(deb: &Path, tree: &Path) -> Result<()> {
    fs::create_dir_all(tree)?;
    let failed = || format!("cannot unpack {}", deb.display());
    let mut source = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(failed)?;
    let archive = source.stdout.take().with_context(failed)?;
    let unpacked = Command::new("tar")
        .args(["-x", "--keep-directory-symlink", "--no-same-owner", "-C"])
        .arg(tree)
        .stdin(archive)
        .status()
        .with_context(failed)?;
    let read = source.wait().with_context(failed)?;
    if !unpacked.success() || !read.success() {
        bail!("cannot unpack {}: dpkg-deb {read}, tar {unpacked}", deb.display());
    }
    Ok(())
}
