//! Memory for guests: huge pages, transparent or reserved, and how much may be locked.

use std::fs;
use std::io;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Resource, getrlimit};

use super::report::Check;

const RESERVE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
const SHMEM: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

pub(super) fn checks() -> Vec<Check> {
    vec![memfd(), transparent(), reserved(), locked()]
}

fn memfd() -> Check {
    match memfd_create("vmm-doctor", MemfdFlags::CLOEXEC) {
        Ok(_) => Check::ok("memfd", "guest memory can be shared between processes").required(),
        Err(error) => Check::missing("memfd", io::Error::from(error).to_string()).required(),
    }
}

fn transparent() -> Check {
    let name = "huge pages, transparent";
    let Ok(text) = fs::read_to_string(SHMEM) else {
        return Check::warn(name, "this kernel has none for shared memory");
    };
    let chosen = text.split(['[', ']']).nth(1).unwrap_or("unknown").to_owned();
    match chosen.as_str() {
        "never" | "deny" => Check::warn(name, format!("shared memory gets none: {chosen}"))
            .hint(format!("as root: echo advise > {SHMEM}; guests then take fewer page faults")),
        _ => Check::ok(name, format!("shared memory gets them: {chosen}")),
    }
}

fn reserved() -> Check {
    let name = "huge pages, reserved";
    let count = |file: &str| {
        let text = fs::read_to_string(format!("{RESERVE}/{file}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    match (count("free_hugepages"), count("nr_hugepages")) {
        (Some(0), Some(0)) => Check::warn(name, "none, so that --hugepages cannot work")
            .hint("as root: echo NUMBER > /proc/sys/vm/nr_hugepages, each of 2 MiB"),
        (Some(free), Some(all)) => Check::ok(name, format!("{free} of {all} are free, 2 MiB each")),
        _ => Check::warn(name, "this kernel has none of 2 MiB"),
    }
}

fn locked() -> Check {
    let name = "locked memory";
    match getrlimit(Resource::Memlock).current {
        None => Check::ok(name, "without limit"),
        Some(bytes) => Check::ok(name, format!("limit of {} KiB, for --lock-memory", bytes >> 10))
            .hint("`ulimit -l` raises it; root has no limit"),
    }
}
