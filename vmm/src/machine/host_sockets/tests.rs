use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use executor::{Executor, TaskGroup};
use ipc::{Deadline, Sender};

use super::*;

fn config(folder: &Path) -> VsockConfig {
    let text = format!("path={}", folder.join("v.sock").display());
    text.parse().expect("a socket")
}

/// The host's side without a device.
fn host_sockets(config: &VsockConfig) -> (HostSockets, Sender<ConnectRequest>) {
    let (_, stream_file) = listen(config.path.clone(), SocketType::STREAM).expect("listens");
    let (_, seqpacket_file) =
        listen(config.seqpacket_path(), SocketType::SEQPACKET).expect("listens");
    let (connects, requests) = ipc::channel(4);
    let files = [stream_file, seqpacket_file];
    (HostSockets { config: config.clone(), requests, _files: files }, connects)
}

#[test]
fn sockets_are_the_owners_and_go_with_the_machine() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (device, sockets) = open(&config).expect("opens");
    for path in [config.path.clone(), config.seqpacket_path()] {
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    UnixStream::connect(&config.path).expect("it listens");
    drop((device, sockets));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn what_a_dead_machine_left_is_replaced_and_a_living_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (socket, file) = listen(config.path.clone(), SocketType::STREAM).expect("listens");
    assert!(matches!(
        open(&config),
        Err(Error::HostSockets(HostSocketError::InUse { path })) if path == config.path
    ));
    std::mem::forget(file);
    drop(socket);
    let first = open(&config).expect("replaces what is left");
    assert!(open(&config).is_err());
    drop(first);
    fs::write(&config.path, "a file").expect("writes");
    let error = open(&config).expect_err("a file is not replaced");
    assert!(crate::error::Hint::hint(&error).is_some_and(|hint| hint.contains("no socket")));
    assert!(config.path.exists());
}

#[test]
fn a_guest_reaches_who_listens() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (sockets, connects) = host_sockets(&config);
    let mut executor = Executor::new(&executor::Config::default()).expect("an executor");
    executor.block_on(async {
        let tasks = TaskGroup::new();
        tasks.spawn(sockets.serve());
        let ask = async |port, kind| {
            let make = |reply| ConnectRequest { port, kind, reply };
            let deadline = Deadline::after(Duration::from_mins(1));
            connects.call(make, deadline).await.expect("an answer")
        };
        let listener = UnixListener::bind(config.port_path(5)).expect("listens");
        assert_eq!(ask(4, SocketKind::Stream).await.err(), Some(Refused));
        assert_eq!(ask(5, SocketKind::Seqpacket).await.err(), Some(Refused));
        ask(5, SocketKind::Stream).await.expect("connects");
        listener.accept().expect("it waits");
        tasks.cancel_all().await;
    });
    assert!(!config.path.exists());
}

#[test]
fn a_program_that_is_slow_to_accept_keeps_only_its_own_guests_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(folder.path());
    let (sockets, connects) = host_sockets(&config);
    let (_slow, _file) = {
        let socket = socket(SocketType::STREAM).expect("a socket");
        let path = config.port_path(1);
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).expect("a path")).expect("binds");
        rustix::net::listen(&socket, 0).expect("listens");
        (socket, SocketFile(path))
    };
    let _quick = UnixListener::bind(config.port_path(2)).expect("listens");
    let mut executor = Executor::new(&executor::Config::default()).expect("an executor");
    executor.block_on(async {
        let tasks = TaskGroup::new();
        tasks.spawn(sockets.serve());
        let ask = async |port| {
            let make = |reply| ConnectRequest { port, kind: SocketKind::Stream, reply };
            let deadline = Deadline::after(Duration::from_mins(1));
            connects.call(make, deadline).await.expect("an answer")
        };
        let _first = ask(1).await.expect("there is room for one");
        let second = pin!(ask(1));
        match select(second, pin!(ask(2))).await {
            Either::Right(answer) => drop(answer.expect("connects")),
            Either::Left(_) => panic!("there is no room for a second"),
        }
        assert_eq!(ask(1).await.err(), Some(Refused), "after its patience");
        tasks.cancel_all().await;
    });
}
