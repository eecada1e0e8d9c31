//! Sockets that are not there, belong to nobody any more, or to somebody else.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::machine::{ENDLESS, Machine, Said, ctl_at, has_kvm, vmm_at};

/// The user that no file belongs to.
const NOBODY: u32 = 65534;

fn assert_refused(said: &Said, words: &[&str]) {
    assert_eq!(said.status, Some(35), "{}", said.err);
    for words in words {
        assert!(said.err.contains(words), "{words}: {}", said.err);
    }
}

#[test]
fn what_is_no_machine_is_told_apart() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path();
    let said = ctl_at(path, &["./missing.sock", "status"]);
    assert_refused(&said, &["cannot reach a machine", "No such file", "hint: it has ended"]);
    std::fs::write(path.join("file"), "text").expect("written");
    let said = ctl_at(path, &["file", "status"]);
    assert_refused(&said, &["`file` is no control socket", "hint: give the path"]);
    drop(UnixListener::bind(path.join("dead.sock")).expect("listens"));
    let said = ctl_at(path, &["dead.sock", "status"]);
    assert_refused(&said, &["cannot reach a machine", "hint: the machine that made this socket"]);
}

#[test]
fn a_machine_is_reached_by_its_name() {
    if !has_kvm() {
        return;
    }
    let mut machine = Machine::start(ENDLESS, &["--name", "web"]);
    let folder = machine.folder.path().to_owned();
    let vmm = |arguments: &[&str]| vmm_at(&folder, arguments);
    let all: serde_json::Value = serde_json::from_str(&vmm(&["list", "--json"]).out).expect("JSON");
    assert_eq!(all[0]["name"], "web");
    assert_eq!(all[0]["control"], folder.join("vm.sock").to_str().expect("a plain path"));
    assert!(vmm(&["list"]).out.starts_with("web "));
    assert_eq!(vmm(&["ctl", "web", "status"]).status, Some(0));
    assert_refused(&vmm(&["run", "--name", "web"]), &["called `web` runs already", "vmm list"]);
    assert_refused(&vmm(&["ctl", "mail", "status"]), &["no machine is called `mail`"]);
    assert_refused(&vmm(&["run", "--name", "../web"]), &["as --name", "a name has 1 to 40"]);
    assert_eq!(vmm(&["ctl", "web", "stop"]).status, Some(0));
    assert_eq!(machine.wait(), Some(36));
    assert_eq!(vmm(&["list", "--json"]).out, "[]\n");
}

#[test]
fn who_listens_and_is_no_machine_is_not_waited_for() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path();
    let listener = UnixListener::bind(path.join("silent.sock")).expect("listens");
    let said = ctl_at(path, &["silent.sock", "status"]);
    assert_refused(&said, &["does not answer", "timed out", "or this is no machine"]);
    drop(listener);
    let listener = UnixListener::bind(path.join("web.sock")).expect("listens");
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("written");
    });
    let said = ctl_at(path, &["web.sock", "status"]);
    assert_refused(&said, &["what listens at `web.sock` is no machine", "hint: give the path"]);
    server.join().expect("ends");
}

#[test]
fn the_socket_of_a_machine_that_was_killed_is_told_and_used_again() {
    if !has_kvm() {
        return;
    }
    let mut machine = Machine::start(ENDLESS, &[]);
    let mode = machine.path("vm.sock").metadata().expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    machine.kill();
    assert_refused(&machine.ctl(&["status"]), &["hint: the machine that made this socket is gone"]);
    let mut again = Command::new(env!("CARGO_BIN_EXE_vmm"));
    again.args(["run", "--control", "vm.sock", "--cmdline", "check=cpu"]);
    let output = again.current_dir(machine.folder.path()).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(0));
    assert!(!machine.path("vm.sock").exists());
}

#[test]
fn a_path_that_is_taken_is_refused() {
    if !has_kvm() {
        return;
    }
    let machine = Machine::start(ENDLESS, &[]);
    std::fs::write(machine.path("file"), "text").expect("written");
    for taken in ["vm.sock", "file"] {
        let mut other = Command::new(env!("CARGO_BIN_EXE_vmm"));
        other.args(["run", "--control", taken]).current_dir(machine.folder.path());
        let said = Said::from(other.output().expect("the binary starts"));
        assert_refused(&said, &["cannot be controlled", "hint: another machine listens there"]);
    }
    machine.done(&["status"]);
    assert_eq!(machine.text("file"), "text");
}

#[test]
fn other_users_are_kept_out() {
    if !has_kvm() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can be another user");
        return;
    }
    let machine = Machine::start(ENDLESS, &[]);
    std::fs::set_permissions(machine.folder.path(), Permissions::from_mode(0o755)).expect("set");
    let binary = machine.path("vmm");
    // By another process: a child that another test forks meanwhile would hold it open for writing.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_vmm")).arg(&binary).status();
    assert!(copied.expect("cp starts").success());
    let as_nobody = || -> Said {
        let mut command = Command::new(&binary);
        command.args(["ctl", "vm.sock", "stop"]).current_dir(machine.folder.path());
        command.uid(NOBODY).gid(NOBODY).output().expect("the binary starts").into()
    };
    assert_refused(&as_nobody(), &["Permission denied", "hint: only user 0 and root may"]);
    // Even where the file lets everybody in.
    let everybody = Permissions::from_mode(0o666);
    std::fs::set_permissions(machine.path("vm.sock"), everybody).expect("set");
    let words = "user 65534 may not control a machine of user 0";
    assert_refused(&as_nobody(), &[words, "hint: only its owner and root may"]);
    machine.done(&["status"]);
}
