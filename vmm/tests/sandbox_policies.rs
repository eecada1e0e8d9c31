//! `vmm seccomp`, from outside.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn vmm(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vmm"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_names_every_mistake_of_every_file_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &str| {
        fs::write(folder.path().join(name), content).expect("writes");
    };
    write("good.policy", "read: 1\nepoll_wait: 1\n@include ./other.policy\n");
    write("other.policy", "write: arg0 == 2\n");
    write("bad.policy", "raed: 1\n\n# fine\nopenat: arg9 == 1\nread: return ENOTHING\n");
    write("worse.policy", "@include ./missing.policy\n");
    let output =
        vmm(folder.path(), &["seccomp", "check", "good.policy", "bad.policy", "worse.policy"]);
    assert_eq!(output.status.code(), Some(35));
    assert_eq!(text(&output.stdout), "");
    let shown = text(&output.stderr);
    let lines: Vec<_> = shown.lines().collect();
    let starts = ["bad.policy:1: ", "bad.policy:4: ", "bad.policy:5: ", "worse.policy:1: "];
    assert_eq!(lines.len(), starts.len(), "{shown}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{shown}");
    }
}

#[test]
fn check_is_silent_about_what_is_right() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.policy"), "read: 1\n").expect("writes");
    let output = vmm(folder.path(), &["seccomp", "check", "a.policy"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!((output.stdout, output.stderr), (Vec::new(), Vec::new()));
}

#[test]
fn check_goes_on_after_a_file_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("bad.policy"), "raed: 1\n").expect("writes");
    let output = vmm(folder.path(), &["seccomp", "check", "missing.policy", "bad.policy"]);
    assert_eq!(output.status.code(), Some(35));
    let shown = text(&output.stderr);
    assert!(shown.contains("error: cannot read the policy `missing.policy`"), "{shown}");
    assert!(shown.contains("bad.policy:1: "), "{shown}");
}

#[test]
fn dump_shows_the_filter_for_each_architecture() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.policy"), "read: 1\nmmap: arg2 in PROT_READ\n")
        .expect("writes");
    for (arch, audit) in [("x86_64", "0xc000003e"), ("aarch64", "0xc00000b7")] {
        let output = vmm(folder.path(), &["seccomp", "dump", "a.policy", "--arch", arch]);
        assert_eq!(output.status.code(), Some(0));
        let shown = text(&output.stdout);
        assert!(shown.starts_with("# a.policy for "), "{shown}");
        assert!(shown.contains(&format!("if == {audit}")), "{shown}");
        assert!(shown.contains("low half of arg2"), "{shown}");
    }
}

#[test]
fn dump_refuses_what_it_cannot_compile() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.policy"), "raed: 1\n").expect("writes");
    let output = vmm(folder.path(), &["seccomp", "dump", "a.policy"]);
    assert_eq!(output.status.code(), Some(35));
    let shown = text(&output.stderr);
    assert!(shown.contains("a.policy:1: no system call is named `raed`"), "{shown}");
    assert!(shown.contains("hint: `vmm seccomp check FILE`"), "{shown}");
}

#[test]
fn built_in_policies_are_listed_and_can_be_dumped() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = vmm(folder.path(), &["seccomp", "list"]);
    assert_eq!(output.status.code(), Some(0));
    let shown = text(&output.stdout);
    let names: Vec<_> = shown.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"probe"), "{shown}");
    for name in names {
        let output = vmm(folder.path(), &["seccomp", "dump", name]);
        assert_eq!(output.status.code(), Some(0), "{name}");
        // A file of the same name is what was meant.
        fs::write(folder.path().join(name), "read: 1\n").expect("writes");
        let of_file = vmm(folder.path(), &["seccomp", "dump", name]);
        assert!(of_file.stdout.len() < output.stdout.len(), "{name}");
    }
}
