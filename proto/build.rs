//! Compiles the `.proto` files with a compiler that is itself a crate: no protoc is needed.

use std::error::Error;

const FILES: [&str; 4] = [
    "vmm/agent/v1/agent.proto",
    "vmm/agent/v1/crashes.proto",
    "vmm/agent/v1/host.proto",
    "vmm/agent/v1/logs.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=vmm");
    let files = protox::compile(FILES, ["."])?;
    // Servers are written by hand: the generated ones ask for handlers that may change threads,
    // and ours live on one.
    tonic_prost_build::configure().build_server(false).build_transport(false).compile_fds(files)?;
    Ok(())
}
