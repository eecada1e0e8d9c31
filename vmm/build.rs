//! Compiles the built-in guest (guest/builtin) into `OUT_DIR/builtin-guest`, to be embedded in `vmm`.
//!
//! rustc is called directly: a cargo inside of cargo would wait for the lock of the target folder,
//! and a crate without dependencies needs none.

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::Command,
};

/// No start files, no C library, no relocation: the image runs where the linker script puts it.
/// The red zone is off although interrupts switch stacks, so that this never has to be argued.
const FLAGS: &[&str] = &[
    "--crate-name=builtin_guest",
    "--crate-type=bin",
    "--edition=2024",
    "-Copt-level=2",
    "-Cpanic=abort",
    "-Crelocation-model=static",
    "-Cno-redzone=yes",
    "-Coverflow-checks=yes",
    "-Cdebuginfo=0",
    "-Cstrip=symbols",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-no-pie",
    "-Clink-arg=-Wl,--build-id=none",
    "-Clink-arg=-Wl,-z,max-page-size=4096",
];

fn main() -> Result<(), Box<dyn Error>> {
    let guest = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../guest/builtin");
    let out = PathBuf::from(env::var("OUT_DIR")?).join("builtin-guest");
    println!("cargo::rerun-if-changed={}", guest.join("src").display());
    println!("cargo::rerun-if-changed={}", guest.join("link.ld").display());

    let architecture = env::var("CARGO_CFG_TARGET_ARCH")?;
    if architecture != "x86_64" {
        return Err(format!("the built-in guest is not written for {architecture} yet").into());
    }

    let rustc = env::var("RUSTC")?;
    let status = Command::new(&rustc)
        .args(FLAGS)
        .arg(format!("--target={}", env::var("TARGET")?))
        .arg(format!("-Clink-arg=-Wl,-T,{}", guest.join("link.ld").display()))
        .arg("-o")
        .arg(&out)
        .arg(guest.join("src/main.rs"))
        .status()
        .map_err(|error| format!("cannot run {rustc} for the built-in guest: {error}"))?;
    if !status.success() {
        return Err(format!("{rustc} failed to build the built-in guest ({status})").into());
    }
    Ok(())
}
