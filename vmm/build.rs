//! Compiles what is embedded in `vmm`: the built-in guest (guest/builtin) into
//! `OUT_DIR/builtin-guest`, and for release builds the guest's agent into `OUT_DIR/vmm-agent`.
//!
//! For the built-in guest rustc is called directly: a crate without dependencies needs no cargo. The
//! agent has dependencies and is static, which nothing else is; a second cargo builds it, in a
//! target folder of its own, because it would wait for the lock of the first one's.

use std::{
    env,
    error::Error,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
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

/// What the agent is built from, seen from this crate.
const AGENT_SOURCES: [&str; 6] = [
    "../guest/agent/src",
    "../coredump/src",
    "../rpc/src",
    "../proto",
    "../executor/src",
    "../Cargo.lock",
];

fn main() -> Result<(), Box<dyn Error>> {
    build_guest()?;
    embed_agent()
}

/// Development builds and fuzzers have no agent inside: it would be built again after each change.
fn embed_agent() -> Result<(), Box<dyn Error>> {
    for path in AGENT_SOURCES {
        println!("cargo::rerun-if-changed={path}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let embedded = out.join("vmm-agent");
    let hash = out.join("vmm-agent.hash");
    if env::var("PROFILE")? != "release" || env::var_os("CARGO_CFG_FUZZING").is_some() {
        fs::write(hash, [])?;
        fs::write(embedded, [])?;
        return Ok(());
    }
    // OUT_DIR is TARGET/release/build/vmm-HASH/out.
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not in a target folder")?.join("agent");
    let triple = env::var("TARGET")?;
    let mut cargo = Command::new(env::var("CARGO")?);
    for (name, _) in env::vars_os() {
        // What the outer cargo has set for this crate is not for the inner one.
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_") && name != "CARGO_HOME" || name.starts_with("RUSTC_W") {
            cargo.env_remove(&*name);
        }
    }
    let status = cargo
        .args(["build", "--quiet", "--release", "--locked", "--package", "agent", "--target"])
        .arg(&triple)
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .status()
        .map_err(|error| format!("cannot run cargo for the guest's agent: {error}"))?;
    if !status.success() {
        return Err(format!("cargo failed to build the guest's agent ({status})").into());
    }
    let agent = fs::read(target.join(triple).join("release/vmm-agent"))?;
    let mut hasher = DefaultHasher::new();
    agent.hash(&mut hasher);
    fs::write(hash, format!("{:016x}", hasher.finish()))?;
    Ok(fs::write(embedded, agent)?)
}

fn build_guest() -> Result<(), Box<dyn Error>> {
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
