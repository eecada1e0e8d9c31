//! `vmm serve-9p`, as clients see it.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use p9::wire::{HEADER_BYTES, Header, NO_FID, Names, Reply, Request, Text, VERSION};
use rustix::process::{Resource, Rlimit, setrlimit};

const ROOT: u32 = 0;
/// A server that does not answer for so long hangs.
const PATIENCE: Duration = Duration::from_secs(20);

fn vmm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
    command.args(["-v", "serve-9p"]).stderr(Stdio::piped());
    command
}

/// A server that is ended with the test.
struct Server(Child);

impl Server {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("the binary starts"))
    }

    /// The status of its end, and what it said.
    fn end(mut self) -> (i32, String) {
        let mut said = String::new();
        self.0.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        (self.0.wait().expect("ends").code().expect("no signal"), said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Client(UnixStream);

impl Client {
    /// Of a server that starts.
    fn connect(path: &Path) -> Self {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Ok(socket) = UnixStream::connect(path) {
                return Self::new(socket);
            }
            assert!(std::time::Instant::now() < deadline, "nobody listens on {}", path.display());
            std::thread::yield_now();
        }
    }

    fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self(socket)
    }

    fn begin(&mut self) -> std::io::Result<()> {
        self.ask(&Request::Version { msize: 65536, version: Text(VERSION) }, &[])?;
        let (user, tree) = (Text(b""), Text(b""));
        self.ask(&Request::Attach { fid: ROOT, afid: NO_FID, user, tree, uid: 0 }, &[])?;
        Ok(())
    }

    /// The answer's type and what is behind its header.
    fn ask(&mut self, request: &Request<'_>, data: &[u8]) -> std::io::Result<(u8, Vec<u8>)> {
        self.0.write_all(&request.encode(1, data))?;
        self.receive()
    }

    fn send(&mut self, request: &Request<'_>) {
        self.0.write_all(&request.encode(1, &[])).expect("is read");
    }

    fn receive(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let mut header = [0; HEADER_BYTES];
        self.0.read_exact(&mut header)?;
        let header = Header::decode(&header);
        let mut bytes = vec![0; header.size as usize - HEADER_BYTES];
        self.0.read_exact(&mut bytes)?;
        Ok((header.kind, bytes))
    }

    fn walk(&mut self, newfid: u32, name: &str) -> u8 {
        let names: &[&[u8]] = if name.is_empty() { &[] } else { &[name.as_bytes()] };
        let names = Names::new(names).expect("few");
        self.ask(&Request::Walk { fid: ROOT, newfid, names }, &[]).expect("answers").0
    }

    fn create(&mut self, fid: u32, name: &str) -> (u8, Vec<u8>) {
        self.walk(fid, "");
        let (name, flags) = (Text(name.as_bytes()), libc::O_RDWR as u32);
        self.ask(&Request::Lcreate { fid, name, flags, mode: 0o644, gid: 0 }, &[]).expect("answers")
    }

    fn write(&mut self, fid: u32, data: &[u8]) {
        let write = Request::Write { fid, offset: 0, count: data.len() as u32 };
        let (kind, bytes) = self.ask(&write, data).expect("answers");
        assert_eq!((kind, bytes), (119, (data.len() as u32).to_le_bytes().to_vec()));
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("shared")).expect("makes");
    folder
}

#[test]
fn clients_on_a_socket_come_and_go_and_survive_the_server() {
    let folder = folder();
    let (shared, socket) = (folder.path().join("shared"), folder.path().join("socket"));
    let server = Server::start(vmm().arg("--root").arg(&shared).arg("--socket").arg(&socket));
    let (mut one, mut two) = (Client::connect(&socket), Client::connect(&socket));
    one.begin().expect("a session");
    two.begin().expect("a session");
    one.create(1, "file");
    one.write(1, b"text");
    assert_eq!(fs::read(shared.join("file")).expect("is there"), b"text");
    assert_eq!(two.walk(1, "file"), 111);
    let (kind, bytes) = two.ask(&Request::Lopen { fid: 1, flags: 0 }, &[]).expect("answers");
    assert_eq!(kind, 13, "{bytes:?}");
    // Everything that is not on the ring has to be in the policy.
    let lock = Request::Lock {
        fid: 1,
        kind: 0,
        flags: 0,
        start: 0,
        length: 0,
        process: 1,
        client: Text(b"test"),
    };
    assert_eq!(two.ask(&lock, &[]).expect("answers").0, 53);
    assert_eq!(two.ask(&Request::Fsync { fid: 1, datasync: 0 }, &[]).expect("answers").0, 51);
    assert_eq!(two.ask(&Request::Statfs { fid: 1 }, &[]).expect("answers").0, 9);
    let walk = Request::Xattrwalk { fid: 1, newfid: 9, name: Text(b"") };
    two.ask(&walk, &[]).expect("answers");
    drop(two);
    // The process that serves is the only one that has the folder open.
    let process = serving(&server).expect("a process");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("is there");
    assert!(one.begin().is_err(), "its clients are cut off");
    let mut three = Client::connect(&socket);
    while three.begin().is_err() {
        three = Client::connect(&socket);
    }
    assert_eq!(three.walk(1, "file"), 111);
    let pid = rustix::process::Pid::from_child(&server.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("is there");
    let (status, said) = server.end();
    assert_eq!(status, 128 + libc::SIGTERM, "{said}");
    assert!(said.contains("killed by SIGKILL; its clients are cut off"), "{said}");
    assert!(!socket.exists(), "its socket is gone");
}

/// The grandchild: below the warden.
fn serving(server: &Server) -> Option<rustix::process::Pid> {
    let child = |pid: u32| -> Option<u32> {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    };
    let pid = child(child(server.0.id())?)?;
    rustix::process::Pid::from_raw(pid as i32)
}

#[test]
fn a_client_that_opens_100_000_files_is_refused_some_and_served_on() {
    let folder = folder();
    let (shared, socket) = (folder.path().join("shared"), folder.path().join("socket"));
    fs::write(shared.join("file"), "text").expect("writes");
    let mut command = vmm();
    command.arg("--root").arg(&shared).arg("--socket").arg(&socket);
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = Rlimit { current: Some(2000), maximum: Some(2000) };
            Ok(setrlimit(Resource::Nofile, limit)?)
        });
    }
    let server = Server::start(&mut command);
    let mut client = Client::connect(&socket);
    client.begin().expect("a session");
    let (mut opened, mut refused) = (0, 0);
    let names: [&[u8]; 1] = [b"file"];
    // A few at a time, or it takes long.
    for first in (1..=100_000).step_by(50) {
        for fid in first..first + 50 {
            let names = Names::new(&names).expect("few");
            client.send(&Request::Walk { fid: ROOT, newfid: fid, names });
            client.send(&Request::Lopen { fid, flags: libc::O_RDONLY as u32 });
        }
        for _ in 0..50 {
            assert_eq!(client.receive().expect("answers").0, 111);
            let (kind, bytes) = client.receive().expect("answers");
            match Reply::decode(kind, &bytes).expect("an answer").0 {
                Reply::Lopen { .. } => opened += 1,
                Reply::Lerror { code } if code == libc::EMFILE as u32 => refused += 1,
                reply => panic!("{reply:?}"),
            }
        }
    }
    assert_eq!(opened + refused, 100_000);
    assert!((1700..2000).contains(&opened), "{opened} were opened");
    // Others can come and look around all the same, have no more than one open, and then what this one gives
    // back.
    let mut other = Client::connect(&socket);
    other.begin().expect("a session");
    for fid in [1, 2] {
        assert_eq!(other.walk(fid, "file"), 111);
    }
    other.ask(&Request::Lopen { fid: 1, flags: 0 }, &[]).expect("answers");
    let open = Request::Lopen { fid: 2, flags: 0 };
    let (kind, bytes) = other.ask(&open, &[]).expect("answers");
    let full = Reply::Lerror { code: libc::EMFILE as u32 };
    assert_eq!(Reply::decode(kind, &bytes), Ok((full, &[][..])));
    drop(client);
    while other.ask(&open, &[]).expect("answers").0 != 13 {}
    drop(other);
    let pid = rustix::process::Pid::from_child(&server.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("is there");
    let (_, said) = server.end();
    assert!(!said.contains("cut off"), "{said}");
}

#[test]
fn the_only_client_has_a_descriptor() {
    let folder = folder();
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let number = theirs.as_raw_fd();
    let mut command = vmm();
    command.arg("--root").arg(folder.path().join("shared")).arg("--read-only");
    command.arg("--fd").arg(number.to_string());
    // SAFETY: a plain system call between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::fcntl(number, libc::F_SETFD, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let server = Server::start(&mut command);
    drop(theirs);
    let mut client = Client::new(ours);
    client.begin().expect("a session");
    let read_only = Reply::Lerror { code: libc::EROFS as u32 };
    let (kind, bytes) = client.create(1, "new");
    assert_eq!(Reply::decode(kind, &bytes), Ok((read_only, &[][..])));
    drop(client);
    assert_eq!(server.end().0, 0);
}

#[test]
fn what_cannot_be_served_is_told() {
    let folder = folder();
    for (arguments, words) in [
        (&["--root", "none", "--socket", "s"][..], "cannot share the directory `none`"),
        (&["--root", "file", "--socket", "s"], "cannot share the directory `file`"),
        (&["--root", "shared", "--socket", "none/s"], "cannot listen on the socket `none/s`"),
        (&["--root", "shared", "--fd", "99"], "descriptor 99 is no socket"),
        (&["--root", "shared", "--fd", "2"], "descriptor 2 is no socket"),
        (&["--root", "shared", "--vsock", "564"], "--accept-cid <N>"),
        (&["--root", "shared", "--socket", "s", "--accept-cid", "3"], "cannot be used with"),
        (&["--root", "shared"], "--socket <PATH>"),
        (&["--socket", "s"], "--root <DIR>"),
        (&["--root", "shared", "--socket", "s", "--msize", "100"], "4096..=524288"),
    ] {
        fs::write(folder.path().join("file"), "").expect("writes");
        let server = Server::start(vmm().args(arguments).current_dir(folder.path()));
        let (status, said) = server.end();
        assert_eq!(status, 35, "{said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}
