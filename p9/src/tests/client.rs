//! A client that blocks, and a server on a thread of its own over a folder of its own.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

use executor::{Config, Either, Executor, Fd, select};
use fileserver::{Access, Errno, Ids};
use tempfile::TempDir;

use crate::wire::*;
use crate::{Connections, Serving, SessionOptions};

pub(super) const ROOT: u32 = 1;

/// A server, and one client of it.
pub(super) struct World {
    folder: TempDir,
    pub(super) client: Client,
    stop: Option<UnixStream>,
    server: Option<JoinHandle<()>>,
}

/// One connection.
pub(super) struct Client {
    pub(super) socket: UnixStream,
    tag: u16,
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    kind: u8,
    bytes: Vec<u8>,
}

impl Answer {
    pub(super) fn reply(&self) -> Reply<'_> {
        Reply::decode(self.kind, &self.bytes).unwrap().0
    }

    pub(super) fn data(&self) -> &[u8] {
        Reply::decode(self.kind, &self.bytes).unwrap().1
    }

    pub(super) fn qid(&self) -> Qid {
        match self.reply() {
            Reply::Attach { qid }
            | Reply::Lopen { qid, .. }
            | Reply::Lcreate { qid, .. }
            | Reply::Mkdir { qid }
            | Reply::Symlink { qid }
            | Reply::Mknod { qid }
            | Reply::Getattr { qid, .. } => qid,
            reply => panic!("{reply:?} has no qid"),
        }
    }
}

pub(super) fn text(text: &str) -> Text<'_> {
    Text(text.as_bytes())
}

/// A change of what `valid` says, by `P9_SETATTR_*`.
pub(super) fn setattr(fid: u32, valid: u32) -> Request<'static> {
    let (mode, uid, gid, size) = (0o600, 5, 0, 3);
    let (atime, atime_nsec, mtime, mtime_nsec) = (10, 11, 77, 5);
    Request::Setattr { fid, valid, mode, uid, gid, size, atime, atime_nsec, mtime, mtime_nsec }
}

impl World {
    /// With a session, and the root attached.
    pub(super) fn new(access: Access) -> Self {
        let mut world = Self::idle(access);
        world.client.begin();
        world
    }

    pub(super) fn idle(access: Access) -> Self {
        Self::with(access, Ids::Squashed)
    }

    pub(super) fn with(access: Access, ids: Ids) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("shared")).unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        let directory = fs::File::open(folder.path().join("shared")).unwrap().into();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let (stop, stopped) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || {
            // SAFETY: the thread gets its own umask and working directory, nothing else changes.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.unwrap();
            Executor::new(&Config::default()).unwrap().block_on(async {
                let options = SessionOptions::default();
                let serving = Serving { directory, access, ids, options };
                let connections = Connections::new(serving);
                let (listener, stopped) = (Fd::new(listener), Fd::new(stopped));
                let (listener, stopped) = (listener.unwrap(), stopped.unwrap());
                let accept = std::pin::pin!(connections.accept(&listener, |_| Ok(())));
                let stop = std::pin::pin!(stopped.read(Vec::with_capacity(1)));
                match select(accept, stop).await {
                    Either::Left(()) | Either::Right(_) => {}
                }
            });
        });
        let client = Client::connect(folder.path().join("socket"));
        Self { folder, client, stop: Some(stop), server: Some(server) }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("shared").join(name)
    }

    /// One more connection.
    pub(super) fn connect(&self) -> Client {
        Client::connect(self.folder.path().join("socket"))
    }

    /// One more client.
    pub(super) fn another(&self) -> Client {
        let mut client = self.connect();
        client.begin();
        client
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop = None;
        let ended = self.server.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

impl Client {
    fn connect(path: PathBuf) -> Self {
        Self { socket: UnixStream::connect(path).unwrap(), tag: 0 }
    }

    pub(super) fn begin(&mut self) {
        let version = Request::Version { msize: 1 << 20, version: Text(VERSION) };
        let answer = self.ask(&version).unwrap();
        let expected = Reply::Version { msize: 512 << 10, version: Text(VERSION) };
        assert_eq!(answer.reply(), expected);
        self.attach(ROOT).unwrap();
    }

    /// Whether the server answers at all.
    pub(super) fn try_begin(&mut self) -> std::io::Result<()> {
        let version = Request::Version { msize: 8192, version: Text(VERSION) };
        self.socket.write_all(&version.encode(1, &[]))?;
        self.socket.read_exact(&mut [0; HEADER_BYTES])
    }

    pub(super) fn attach(&mut self, fid: u32) -> Result<Answer, Errno> {
        self.attach_as(0, fid)
    }

    /// On behalf of a user.
    pub(super) fn attach_as(&mut self, uid: u32, fid: u32) -> Result<Answer, Errno> {
        let (user, tree) = (Text(b"root"), Text(b""));
        self.ask(&Request::Attach { fid, afid: NO_FID, user, tree, uid })
    }

    pub(super) fn send(&mut self, request: &Request<'_>, data: &[u8]) -> u16 {
        self.tag = self.tag.wrapping_add(1);
        self.socket.write_all(&request.encode(self.tag, data)).unwrap();
        self.tag
    }

    /// The next answer, with its tag.
    pub(super) fn receive(&mut self) -> (u16, Answer) {
        let mut header = [0; HEADER_BYTES];
        self.socket.read_exact(&mut header).unwrap();
        let header = Header::decode(&header);
        let mut bytes = vec![0; header.size as usize - HEADER_BYTES];
        self.socket.read_exact(&mut bytes).unwrap();
        (header.tag, Answer { kind: header.kind, bytes })
    }

    pub(super) fn ask(&mut self, request: &Request<'_>) -> Result<Answer, Errno> {
        self.ask_with(request, &[])
    }

    pub(super) fn ask_with(&mut self, request: &Request<'_>, data: &[u8]) -> Result<Answer, Errno> {
        let sent = self.send(request, data);
        let (tag, answer) = self.receive();
        assert_eq!(tag, sent);
        match answer.reply() {
            Reply::Lerror { code } => Err(Errno::from_raw_os_error(code as i32)),
            reply => {
                assert_eq!(reply.kind(), request.kind() + 1);
                Ok(answer)
            }
        }
    }

    pub(super) fn walk(&mut self, fid: u32, newfid: u32, path: &str) -> Result<usize, Errno> {
        let names: Vec<&[u8]> =
            path.split('/').filter(|n| !n.is_empty()).map(str::as_bytes).collect();
        let names = Names::new(&names).unwrap();
        let answer = self.ask(&Request::Walk { fid, newfid, names })?;
        let Reply::Walk { qids } = answer.reply() else { unreachable!() };
        Ok(qids.as_slice().len())
    }

    pub(super) fn open(&mut self, fid: u32, flags: i32) -> Result<Answer, Errno> {
        self.ask(&Request::Lopen { fid, flags: flags as u32 })
    }

    pub(super) fn create(&mut self, newfid: u32, name: &str) -> Result<Answer, Errno> {
        self.walk(ROOT, newfid, "")?;
        let (name, flags) = (Text(name.as_bytes()), (libc::O_RDWR | libc::O_EXCL) as u32);
        self.ask(&Request::Lcreate { fid: newfid, name, flags, mode: 0o644, gid: 0 })
    }

    pub(super) fn write(&mut self, fid: u32, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let request = Request::Write { fid, offset, count: data.len() as u32 };
        let answer = self.ask_with(&request, data)?;
        let Reply::Write { count } = answer.reply() else { unreachable!() };
        Ok(count)
    }

    pub(super) fn read(&mut self, fid: u32, offset: u64, count: u32) -> Result<Vec<u8>, Errno> {
        Ok(self.ask(&Request::Read { fid, offset, count })?.data().to_vec())
    }

    pub(super) fn clunk(&mut self, fid: u32) -> Result<(), Errno> {
        self.ask(&Request::Clunk { fid }).map(drop)
    }

    /// Names of a directory, read with so many bytes at a time.
    pub(super) fn list(&mut self, fid: u32, count: u32) -> Result<Vec<String>, Errno> {
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let answer = self.ask(&Request::Readdir { fid, offset, count })?;
            let mut rest = answer.data();
            if rest.is_empty() {
                names.sort();
                return Ok(names);
            }
            while !rest.is_empty() {
                offset = u64::from_le_bytes(rest[13..21].try_into().unwrap());
                let length = usize::from(u16::from_le_bytes([rest[22], rest[23]]));
                names.push(String::from_utf8(rest[24..24 + length].to_vec()).unwrap());
                rest = &rest[24 + length..];
            }
        }
    }
}
