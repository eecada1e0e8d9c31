//! Consoles, with those at the other end.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use devices::virtio::console::driver::{
    DEVICE_READY, PORT_ADD, PORT_NAME, PORT_OPEN, PORT_READY, Told, tell, told,
};
use devices::virtio::vhost_user::driven::Driven;

use crate::support::{Device, connect};

/// A back end that does nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Virtio 1.3 section 5.3.3.
const MULTIPORT: u64 = 1 << 1;

fn start(folder: &Path, ports: &[String]) -> Device {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
    command.current_dir(folder).args(["device", "console", "--once", "--socket", "socket"]);
    Device(command.args(ports).stdin(Stdio::null()).spawn().expect("the binary starts"))
}

/// A guest that uses all queues of a console.
fn guest(socket: UnixStream, features: u64, queues: usize) -> Driven {
    let mut guest = Driven::new(socket, features, queues);
    assert_eq!(guest.front_end.features().expect("features") & MULTIPORT, features);
    assert_eq!(guest.front_end.queue_count().expect("queues"), queues as u64);
    guest.begin(&vec![0; queues]);
    guest
}

/// All that there can be: the sandbox has room for their files.
#[test]
fn sixteen_ports_with_names_carry_bytes_both_ways() {
    const PORTS: usize = 16;
    let folder = tempfile::tempdir().expect("a folder");
    let ports: Vec<_> = (0..PORTS).map(|port| format!("unix=s{port},name=p{port}")).collect();
    let mut device = start(folder.path(), &ports);
    let mut guest = guest(connect(&folder.path().join("socket")), MULTIPORT, 2 * PORTS + 2);
    assert_eq!(guest.front_end.config(8).expect("a space"), [0, 0, 0, 0, PORTS as u8, 0, 0, 0]);
    tell(&mut guest, u32::MAX, DEVICE_READY);
    for port in 0..PORTS as u32 {
        assert_eq!(told(&mut guest), Told { port, event: PORT_ADD, rest: Vec::new() });
    }
    for port in 0..PORTS {
        let name = format!("p{port}").into_bytes();
        let port = port as u32;
        tell(&mut guest, port, PORT_READY);
        assert_eq!(told(&mut guest), Told { port, event: PORT_NAME, rest: name });
        assert_eq!(told(&mut guest), Told { port, event: PORT_OPEN, rest: Vec::new() });
        tell(&mut guest, port, PORT_OPEN);
    }
    for port in 0..PORTS {
        let receive = if port == 0 { 0 } else { 2 * port + 2 };
        let mut host = connect(&folder.path().join(format!("s{port}")));
        host.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let (here, there) = (format!("to {port}"), format!("from {port}"));
        host.write_all(here.as_bytes()).expect("is open");
        guest.listen(receive);
        assert_eq!(guest.heard(receive), here.as_bytes());
        guest.say(receive + 1, there.as_bytes());
        guest.taken(receive + 1);
        let mut came = vec![0; there.len()];
        host.read_exact(&mut came).expect("is open");
        assert_eq!(came, there.as_bytes());
    }
    drop(guest);
    assert!(device.0.wait().expect("ends").success());
    assert!(fs::read_dir(&folder).expect("a folder").next().is_none(), "its sockets are gone");
}

/// The last words of a guest are in the file when the command has ended.
#[test]
fn a_console_that_is_a_file_has_all_that_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut device = start(folder.path(), &["file=log".to_owned()]);
    let mut guest = guest(connect(&folder.path().join("socket")), 0, 2);
    for words in ["one ", "two"] {
        guest.say(1, words.as_bytes());
        guest.taken(1);
    }
    drop(guest);
    assert!(device.0.wait().expect("ends").success());
    let file = File::open(folder.path().join("log")).expect("a file");
    assert_eq!(io::read_to_string(file).expect("text"), "one two");
}

#[test]
fn two_devices_behind_one_socket_and_ends_that_are_none_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |ports: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
        command.current_dir(folder.path()).args(["device", "console", "--socket", "socket"]);
        let output = command.args(ports).stdin(Stdio::null()).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(35), "{ports:?}");
        assert!(fs::read_dir(&folder).expect("a folder").next().is_none(), "{ports:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    assert_eq!(
        refused(&["null", "unix=b,name=b"]),
        "error: a console without a name and ports with names are two devices\n\
         hint: serve each from a `vmm device console` and a socket of its own\n"
    );
    assert!(refused(&["null", "pty"]).contains("one console without a name"));
    assert!(refused(&["unix=a,name=a", "unix=b,name=a"]).contains("are called `a`"));
    assert!(refused(&["unix=a,name=a", "unix=a,name=b"]).contains("end at `unix=a`"));
    assert!(refused(&[]).contains("required"));
}
