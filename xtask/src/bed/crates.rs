//! Programs of other projects, from crates.io: installed once, kept under `target/bed`.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::project;

/// The folder of the programs.
pub(crate) fn folder() -> PathBuf {
    project::bed().join("crates/bin")
}

/// Installs packages, `NAME@VERSION` each with a program of its name, that are not there yet.
pub(crate) fn ensure(packages: &[&str]) -> Result<()> {
    for package in packages {
        let name = package.split('@').next().unwrap_or(package);
        if folder().join(name).exists() {
            continue;
        }
        eprintln!("bed: installing {package}");
        let mut cargo = project::cargo();
        cargo.args(["install", "--quiet", "--locked", "--root"]).arg(project::bed().join("crates"));
        project::output(cargo.arg(package)).with_context(|| format!("cannot install {package}"))?;
    }
    Ok(())
}
