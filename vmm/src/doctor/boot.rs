//! Kernels of this host that a guest could boot.

use std::fs::{self, File};
use std::path::PathBuf;

use super::report::Check;

pub(super) fn checks() -> Vec<Check> {
    let kernels = kernels();
    let name = "host kernel";
    let check = match kernels.iter().find(|path| File::open(path).is_ok()) {
        Some(path) => Check::ok(name, format!("{} can be booted in a guest", path.display())),
        None => match kernels.first() {
            Some(path) => Check::warn(name, format!("{} is not readable", path.display()))
                .hint("as root: chmod +r it, or copy it"),
            None => Check::warn(name, "there is none in /boot")
                .hint("install a package such as linux-image-cloud-amd64, or name another kernel"),
        },
    };
    vec![check]
}

/// The newest names first.
fn kernels() -> Vec<PathBuf> {
    let entries = fs::read_dir("/boot").into_iter().flatten().filter_map(Result::ok);
    let mut kernels: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("vmlinuz-") || name.starts_with("vmlinux-")
        })
        .collect();
    kernels.sort_unstable_by(|left, right| right.cmp(left));
    kernels
}
