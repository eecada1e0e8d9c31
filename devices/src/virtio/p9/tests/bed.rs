//! A model of Linux' driver, over a folder of the host.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use p9::wire::{HEADER_BYTES, Header, NO_FID, Names, Reply, Request, Text, VERSION};
use tempfile::TempDir;

use super::super::*;
use crate::virtio::queue::driver::Buffer;
use crate::virtio::queue::{Chain, Queue, QueueLayout, RingFeatures};
use crate::virtio::test_bed::{TestBed, readable, writable};

pub(super) use fileserver::Errno;

/// Where messages lie, and where their answers; each tag has its own.
pub(super) const MESSAGE: u64 = 1 << 20;
pub(super) const ANSWER: u64 = 4 << 20;
const PLACE: u64 = 256 << 10;
/// Room for an answer.
pub(super) const ROOM: u32 = 128 << 10;
pub(super) const ROOT: u32 = 1;

/// A file server and its driver.
pub(super) struct P9Bed {
    pub(super) bed: TestBed,
    folder: TempDir,
    ledger: OwnedFd,
    options: P9Options,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) tag: u16,
    kind: u8,
    bytes: Vec<u8>,
}

impl Answer {
    pub(super) fn reply(&self) -> Result<Reply<'_>, Errno> {
        match Reply::decode(self.kind, &self.bytes).unwrap().0 {
            Reply::Lerror { code } => Err(Errno::from_raw_os_error(code as i32)),
            reply => Ok(reply),
        }
    }

    pub(super) fn data(&self) -> &[u8] {
        Reply::decode(self.kind, &self.bytes).unwrap().1
    }
}

impl P9Bed {
    /// One that runs and has no session yet.
    pub(super) async fn idle(options: P9Options, inflight: Option<InflightRegion>) -> Self {
        // SAFETY: the test's thread gets its own umask and working directory, nothing else changes.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.unwrap();
        let ledger = Ledger::create(shape()).unwrap();
        let bed = TestBed::new(8 << 20, &profile(&options));
        let folder = tempfile::tempdir().unwrap();
        let mut this = Self { bed, folder, ledger, options };
        this.start(inflight);
        this.activate().await;
        this
    }

    /// One with a session, and the root attached.
    pub(super) async fn new(options: P9Options) -> Self {
        let mut this = Self::idle(options, None).await;
        this.begin().await;
        this
    }

    pub(super) async fn begin(&mut self) {
        let version = Request::Version { msize: 100 << 10, version: Text(VERSION) };
        let answer = self.ask(&version).await;
        let expected = Reply::Version { msize: 100 << 10, version: Text(VERSION) };
        assert_eq!(answer.reply(), Ok(expected));
        let (user, tree) = (Text(b"root"), Text(b""));
        let attach = Request::Attach { fid: ROOT, afid: NO_FID, user, tree, uid: 0 };
        self.ask(&attach).await.reply().unwrap();
    }

    /// Start a back end, in the place of the one that was there.
    pub(super) fn start(&mut self, inflight: Option<InflightRegion>) {
        let directory = File::open(self.folder.path()).unwrap().into();
        let backend = P9Backend::new(directory, &self.ledger, &self.options).unwrap();
        let backend = P9Backend { inflight, ..backend };
        self.bed.run(|context| backend.run(context));
    }

    pub(super) async fn activate(&self) {
        self.bed.activate_with(self.bed.features, self.bed.setups(&[])).await.unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn place(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// What a back end keeps for its successor.
    pub(super) fn ledger(&self) -> Ledger {
        Ledger::attach(&self.ledger, shape()).unwrap()
    }

    /// Take what is available, as a back end that dies at once; says in which order.
    pub(super) fn take_and_die(&self, region: &InflightRegion) -> u64 {
        let memory = Rc::new(self.bed.memory.clone());
        let setup = self.bed.setups(&[]).remove(0);
        let features = RingFeatures::from_bits(self.bed.features);
        let layout = QueueLayout::from(&setup);
        let record = region.record(0).unwrap();
        let mut queue = Queue::new(&memory, &layout, features, record, None).unwrap();
        let mut chain = Chain::new(memory, 64);
        assert!(queue.pop(&mut chain).unwrap());
        queue.order(chain.head())
    }

    /// Makes bytes available as a message, with its data in a buffer of its own.
    pub(super) fn send_bytes(&mut self, tag: u16, bytes: &[u8], data: &[u8], room: u32) -> u16 {
        let place = u64::from(tag) * PLACE;
        let (message, answer) = (MESSAGE + place, ANSWER + place);
        self.bed.write(message, bytes);
        self.bed.write(message + 32768, data);
        let mut buffers: Vec<Buffer> = vec![readable(message, bytes.len() as u32)];
        if !data.is_empty() {
            buffers.push(readable(message + 32768, data.len() as u32));
        }
        // As Linux does where data follows: the header of the answer has a place of its own.
        buffers.push(writable(answer, room.min(11)));
        if room > 11 {
            buffers.push(writable(answer + 4096, room - 11));
        }
        let head = self.bed.driver(0).add(&buffers).unwrap();
        self.bed.publish(0);
        head
    }

    pub(super) fn send(&mut self, tag: u16, request: &Request<'_>, data: &[u8]) -> u16 {
        let mut bytes = request.encode(tag, &[]);
        let size = (bytes.len() + data.len()) as u32;
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        self.send_bytes(tag, &bytes, data, ROOM)
    }

    /// The next answer, which has to be that to a tag.
    pub(super) async fn answer(&mut self, tag: u16) -> Answer {
        let written = self.bed.used(0).await.written as usize;
        let answer = ANSWER + u64::from(tag) * PLACE;
        let mut bytes = self.bed.read(answer, written.min(11));
        bytes.extend(self.bed.read(answer + 4096, written.saturating_sub(11)));
        let header = Header::decode(bytes.first_chunk().unwrap());
        assert_eq!((header.size as usize, header.tag), (written, tag));
        Answer { tag, kind: header.kind, bytes: bytes.split_off(HEADER_BYTES) }
    }

    pub(super) async fn ask(&mut self, request: &Request<'_>) -> Answer {
        self.ask_with(request, &[]).await
    }

    pub(super) async fn ask_with(&mut self, request: &Request<'_>, data: &[u8]) -> Answer {
        self.send(1, request, data);
        self.answer(1).await
    }

    pub(super) async fn walk(&mut self, newfid: u32, name: &str) -> Result<(), Errno> {
        let names = [name.as_bytes()];
        let names = Names::new(if name.is_empty() { &[] } else { &names }).unwrap();
        self.ask(&Request::Walk { fid: ROOT, newfid, names }).await.reply().map(drop)
    }

    pub(super) async fn open(&mut self, fid: u32, flags: i32) -> Result<(), Errno> {
        self.ask(&Request::Lopen { fid, flags: flags as u32 }).await.reply().map(drop)
    }

    pub(super) async fn create(&mut self, fid: u32, name: &str) -> Result<(), Errno> {
        self.walk(fid, "").await?;
        let (name, flags) = (Text(name.as_bytes()), libc::O_RDWR as u32);
        let create = Request::Lcreate { fid, name, flags, mode: 0o644, gid: 0 };
        self.ask(&create).await.reply().map(drop)
    }

    pub(super) async fn write(&mut self, fid: u32, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let write = Request::Write { fid, offset, count: data.len() as u32 };
        match self.ask_with(&write, data).await.reply()? {
            Reply::Write { count } => Ok(count),
            reply => panic!("{reply:?}"),
        }
    }

    pub(super) async fn read(
        &mut self,
        fid: u32,
        offset: u64,
        count: u32,
    ) -> Result<Vec<u8>, Errno> {
        let answer = self.ask(&Request::Read { fid, offset, count }).await;
        answer.reply().map(|_| answer.data().to_vec())
    }
}

pub(super) fn region() -> InflightRegion {
    InflightRegion::create(1, QUEUE_SIZE).unwrap()
}

pub(super) fn again(region: &InflightRegion) -> InflightRegion {
    let file = region.file().try_clone_to_owned().unwrap();
    InflightRegion::attach(file, 1, QUEUE_SIZE).unwrap()
}
