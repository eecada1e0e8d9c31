//! Which processors of the host a machine runs on.

use std::fs;

use crate::machine::{ENDLESS, Machine, has_kvm, until};

/// The threads of a process by their names, and where each may run.
fn threads(pid: u64) -> Vec<(String, String)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let of = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().to_owned())
        };
        Some((field("Name:")?, field("Cpus_allowed_list:")?))
    };
    // One that ends meanwhile is none.
    threads.filter_map(|thread| of(thread.ok()?)).collect()
}

#[test]
fn virtual_cpus_and_devices_run_where_they_are_put() {
    if !has_kvm() {
        return;
    }
    let allowed = executor::allowed_processors().expect("the kernel says");
    let last = allowed.last().expect("this one runs").to_string();
    for placement in [&[][..], &["--single-process"]] {
        let vsock = format!("path=v,cpus={last}");
        let affinity = format!("1={last}");
        let options = ["--cpus", "2", "--cpu-affinity", &affinity, "--vsock", &vsock];
        let machine = Machine::start(ENDLESS, &[&options[..], placement].concat());
        machine.requests_after(0);
        let ours = threads(machine.pid().into());
        let of = |name: &str| ours.iter().find(|thread| thread.0 == name).map(|(_, cpus)| cpus);
        assert_eq!(of("vcpu1"), Some(&last), "{ours:?}");
        // The others run where they did.
        let anywhere = of("vmm").expect("the first thread").clone();
        assert_eq!(of("vcpu0"), Some(&anywhere), "{ours:?}");
        if !placement.is_empty() {
            assert_eq!(of("vsock0"), Some(&last), "{ours:?}");
            assert_eq!(of("blk0"), Some(&anywhere), "{ours:?}");
            continue;
        }
        let pid = |index: usize| {
            until("its process is there", || machine.status()["devices"][index]["pid"].as_u64())
        };
        let of_device = |index| threads(pid(index)).swap_remove(0).1;
        assert_eq!([of_device(0), of_device(1)], [anywhere, last.clone()], "disk and vsock");
    }
}
