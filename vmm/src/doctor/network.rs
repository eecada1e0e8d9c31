//! What guests reach the world through: tap devices, vsock, passt.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::PathBuf;

use rustix::fs::{Access, access};

use super::report::Check;

pub(super) fn checks() -> Vec<Check> {
    vec![
        device(
            "tun",
            "/dev/net/tun",
            "as root: modprobe tun, or pass the device into the container",
        ),
        device(
            "vsock",
            "/dev/vhost-vsock",
            "as root: modprobe vhost_vsock, or pass the device into the container",
        ),
        passt(),
    ]
}

fn device(name: &'static str, path: &str, absent: &'static str) -> Check {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Check::ok(name, format!("{path} opens for reading and writing")),
        Err(error) => Check::missing(name, format!("{path}: {error}")).hint(match error.kind() {
            ErrorKind::PermissionDenied => "change its mode, join its group, or run as root",
            _ => absent,
        }),
    }
}

fn passt() -> Check {
    match in_path("passt") {
        Some(path) => Check::ok("passt", path.display().to_string()),
        None => Check::missing("passt", "not in PATH")
            .hint("install the package passt for networks without root"),
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file() && access(file, Access::EXEC_OK).is_ok())
}
