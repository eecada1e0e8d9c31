//! Whole Debian systems, as archives: made once by debootstrap, which takes root, and kept under `target/bed`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::packages::{self, Missing, Needed};
use super::tree;
use crate::project;

const RELEASE: &str = "bookworm";

/// A system: its archive's name, and what it has beside what every Debian has.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) name: &'static str,
    pub(crate) packages: &'static str,
}

/// The folder of the archives.
pub(crate) fn folder() -> PathBuf {
    project::bed().join("systems")
}

/// Makes the archives that are not there yet.
pub(crate) fn ensure(systems: &[System]) -> Result<()> {
    for system in systems {
        let archive = folder().join(format!("{}.tar", system.name));
        if archive.exists() {
            continue;
        }
        if !rustix::process::geteuid().is_root() {
            return Err(Missing::new("only root can make a Debian system").into());
        }
        packages::ensure_programs(&[Needed { program: "debootstrap", package: "debootstrap" }])?;
        eprintln!("bed: making a Debian system with {}", system.packages);
        make(system, &archive).with_context(|| format!("cannot make {}", archive.display()))?;
    }
    Ok(())
}

fn make(system: &System, archive: &PathBuf) -> Result<()> {
    let root = folder().join(system.name);
    tree::clear(&root)?;
    let mut debootstrap = project::program("debootstrap");
    debootstrap.args(["--variant=minbase", "--include", system.packages, RELEASE]).arg(&root);
    project::output(&mut debootstrap)?;
    // Logging in is not what is tried, but a system without a machine id asks questions at its first boot.
    fs::write(root.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n")?;
    let part = archive.with_extension("part");
    let mut tar = project::program("tar");
    tar.args([
        "--numeric-owner",
        "--exclude=./var/cache/apt/*",
        "--exclude=./usr/share/doc/*",
        "-cf",
    ]);
    project::output(tar.arg(&part).arg("-C").arg(&root).arg("."))?;
    fs::rename(part, archive)?;
    tree::remove(&root)
}
