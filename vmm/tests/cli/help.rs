//! What is not about a machine: help, version, completion, the doctor.

use std::path::Path;

use crate::support::{text, vmm};

/// Compares with a file of `tests/cli/golden`; run with `UPDATE_GOLDEN=1` to write it anew.
fn assert_golden(name: &str, shown: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, shown).expect("the golden file is writable");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file is there");
    assert_eq!(shown, golden, "{}", path.display());
}

#[test]
fn help_is_as_recorded() {
    let here = Path::new(".");
    for (arguments, golden) in [
        (&["--help"][..], "help.txt"),
        (&["run", "--help"], "help-run.txt"),
        (&["exec", "--help"], "help-exec.txt"),
        (&["shell", "--help"], "help-shell.txt"),
        (&["cp", "--help"], "help-cp.txt"),
        (&["forward", "--help"], "help-forward.txt"),
        (&["list", "--help"], "help-list.txt"),
        (&["logs", "--help"], "help-logs.txt"),
        (&["test", "--help"], "help-test.txt"),
        (&["ctl", "--help"], "help-ctl.txt"),
        (&["bench", "blk", "--help"], "help-bench-blk.txt"),
        (&["bench", "net", "--help"], "help-bench-net.txt"),
        (&["bench", "fs", "--help"], "help-bench-fs.txt"),
        (&["bench", "ipc", "--help"], "help-bench-ipc.txt"),
        (&["bench", "executor", "--help"], "help-bench-executor.txt"),
        (&["bench", "exits", "--help"], "help-bench-exits.txt"),
        (&["bench", "boot", "--help"], "help-bench-boot.txt"),
        (&["doctor", "--help"], "help-doctor.txt"),
        (&["device", "--help"], "help-device.txt"),
        (&["device", "blk", "--help"], "help-device-blk.txt"),
        (&["device", "console", "--help"], "help-device-console.txt"),
        (&["device", "serve", "--help"], "help-device-serve.txt"),
    ] {
        let output = vmm(here, arguments);
        assert_golden(golden, &text(&output.stdout));
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn the_version_is_told_in_both_ways() {
    for argument in ["version", "--version"] {
        let output = vmm(Path::new("."), &[argument]);
        assert_eq!(text(&output.stdout), concat!("vmm ", env!("CARGO_PKG_VERSION"), "\n"));
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn completion_scripts_know_the_flags() {
    for shell in ["bash", "zsh", "fish"] {
        let output = vmm(Path::new("."), &["completion", shell]);
        for word in ["single-process", "disk-resize"] {
            assert!(text(&output.stdout).contains(word), "{shell}: {word}");
        }
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn the_doctor_reports_every_area_and_its_status_follows() {
    let output = vmm(Path::new("."), &["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
    let can_run = report["can_run"].as_bool().expect("a verdict");
    assert_eq!(output.status.code(), Some(if can_run { 0 } else { 35 }));
    let checks = report["checks"].as_array().expect("a list");
    for name in ["kvm", "epoll", "memfd", "tun", "vsock", "namespaces", "seccomp", "landlock"] {
        assert!(checks.iter().any(|check| check["name"] == name), "{name}");
    }
    for check in checks {
        assert!(
            ["ok", "warn", "missing"].iter().any(|status| check["status"] == *status),
            "{check}"
        );
        let detail = check["detail"].as_str().expect("a detail");
        assert!(!detail.is_empty(), "{check}");
    }
}
