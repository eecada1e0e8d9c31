//! A model of Linux' driver, over a folder of the host.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tempfile::TempDir;
use zerocopy::{FromBytes, IntoBytes};

use super::super::protocol::{EntryOut, InHeader, InitIn, OpenIn, OpenOut, OutHeader, TransferIn};
use super::super::*;
use crate::virtio::queue::{Chain, Queue, QueueLayout, RingFeatures};
use crate::virtio::test_bed::{TestBed, readable, writable};

pub(super) use super::super::protocol::Opcode;
pub(super) use fileserver::Errno;

/// Where requests lie, and where their answers.
pub(super) const REQUEST: u64 = 1 << 20;
pub(super) const ANSWER: u64 = 4 << 20;
/// The queue that requests go to.
pub(super) const QUEUE: usize = 1;

/// A file server and its driver.
pub(super) struct FsBed {
    pub(super) bed: TestBed,
    folder: TempDir,
    ledger: OwnedFd,
    options: FsOptions,
    shares: Shares,
    unique: u64,
    /// Whom requests are for: a user and a group of the driver.
    pub(super) caller: (u32, u32),
}

/// What the root of the file system is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shares {
    /// The folder.
    Folder,
    /// Nothing, until something is shared.
    Nothing,
}

/// An answer: an error number or bytes.
pub(super) type Answer = Result<Vec<u8>, Errno>;

impl FsBed {
    /// One that runs and has no session yet.
    pub(super) async fn idle(options: FsOptions) -> Self {
        Self::with(options, Shares::Folder).await
    }

    async fn with(options: FsOptions, shares: Shares) -> Self {
        // SAFETY: the test's thread gets its own umask and working directory, nothing else changes.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }.unwrap();
        let ledger = Ledger::create(shape(&options)).unwrap();
        let bed = TestBed::new(8 << 20, &profile(&options));
        let folder = tempfile::tempdir().unwrap();
        let mut this = Self { bed, folder, ledger, options, shares, unique: 1, caller: (0, 0) };
        this.start(None);
        this.activate().await;
        this
    }

    /// One with a session.
    pub(super) async fn new(options: FsOptions) -> Self {
        let mut this = Self::idle(options).await;
        this.init().await;
        this
    }

    /// One that has nothing in its root.
    pub(super) async fn empty() -> Self {
        let mut this = Self::with(FsOptions::new("tag"), Shares::Nothing).await;
        this.init().await;
        this
    }

    pub(super) async fn init(&mut self) {
        let init = InitIn { major: 7, minor: 38, max_readahead: 1 << 17, flags: u32::MAX };
        let answer = self.ask(Opcode::Init, 0, init.as_bytes(), 64).await.unwrap();
        assert_eq!(answer.len(), 64);
        assert_eq!(answer[..8], [7, 0, 0, 0, 38, 0, 0, 0]);
    }

    /// Start a back end, in the place of the one that was there.
    pub(super) fn start(&mut self, inflight: Option<InflightRegion>) {
        let directory = File::open(self.folder.path()).unwrap();
        let root = match self.shares {
            Shares::Folder => Root::Directory(OwnedFd::from(directory).into()),
            Shares::Nothing => Root::Grants(Vec::new()),
        };
        let backend = FsBackend::new(root, &self.ledger, self.options.clone()).unwrap();
        let backend = FsBackend { inflight, ..backend };
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

    /// Make a request available; say how long the answer may be.
    pub(super) fn send(&mut self, opcode: Opcode, node: u64, arguments: &[u8], room: u32) -> u16 {
        self.send_raw(opcode as u32, node, arguments, room)
    }

    fn send_raw(&mut self, opcode: u32, node: u64, arguments: &[u8], room: u32) -> u16 {
        self.unique += 2;
        let header = InHeader {
            length: (size_of::<InHeader>() + arguments.len()) as u32,
            opcode,
            unique: self.unique,
            node,
            uid: self.caller.0,
            gid: self.caller.1,
            pid: 1,
            extensions: 0,
            padding: 0,
        };
        let bytes = [header.as_bytes(), arguments].concat();
        self.bed.write(REQUEST, &bytes);
        let mut buffers = vec![readable(REQUEST, 40)];
        if !arguments.is_empty() {
            buffers.push(readable(REQUEST + 40, arguments.len() as u32));
        }
        // As Linux does: the header of the answer has a place of its own.
        buffers.push(writable(ANSWER, 16));
        if room > 0 {
            buffers.push(writable(ANSWER + 4096, room));
        }
        let head = self.bed.driver(QUEUE).add(&buffers).unwrap();
        self.bed.publish(QUEUE);
        head
    }

    /// The answer to the last request.
    pub(super) async fn answer(&mut self) -> Answer {
        let used = self.bed.used(QUEUE).await;
        let header = OutHeader::read_from_bytes(&self.bed.read(ANSWER, 16)).unwrap();
        assert_eq!(header.unique, self.unique);
        assert_eq!(header.length, used.written);
        if header.error != 0 {
            assert_eq!(header.length, 16);
            return Err(Errno::from_raw_os_error(-header.error));
        }
        Ok(self.bed.read(ANSWER + 4096, header.length as usize - 16))
    }

    pub(super) async fn ask(
        &mut self,
        opcode: Opcode,
        node: u64,
        arguments: &[u8],
        room: u32,
    ) -> Answer {
        self.send(opcode, node, arguments, room);
        self.answer().await
    }

    /// A request of any kind, without arguments.
    pub(super) async fn ask_raw(&mut self, opcode: u32) -> Answer {
        self.send_raw(opcode, 1, &[], 128);
        self.answer().await
    }

    /// What a back end keeps for its successor.
    pub(super) fn ledger(&self) -> Ledger {
        Ledger::attach(&self.ledger, shape(&self.options)).unwrap()
    }

    /// The number of the last request.
    pub(super) fn unique(&self) -> u64 {
        self.unique
    }

    /// Take what is available, as a back end that dies at once.
    pub(super) fn take_and_die(&self, region: &InflightRegion) {
        let memory = Rc::new(self.bed.memory.clone());
        let setup = self.bed.setups(&[]).remove(QUEUE);
        let features = RingFeatures::from_bits(self.bed.features);
        let record = region.record(QUEUE as u16).unwrap();
        let layout = QueueLayout::from(&setup);
        let mut queue = Queue::new(&memory, &layout, features, record, None).unwrap();
        assert!(queue.pop(&mut Chain::new(memory, 64)).unwrap());
    }

    pub(super) async fn look_up(&mut self, node: u64, name: &str) -> Result<EntryOut, Errno> {
        let answer = self.ask(Opcode::Lookup, node, &text(name), 128).await?;
        Ok(EntryOut::read_from_bytes(&answer).unwrap())
    }

    pub(super) async fn open(&mut self, node: u64, flags: i32) -> Result<u64, Errno> {
        let open = OpenIn { flags: flags as u32, open_flags: 0 };
        let answer = self.ask(Opcode::Open, node, open.as_bytes(), 16).await?;
        Ok(OpenOut::read_from_bytes(&answer).unwrap().handle)
    }

    pub(super) async fn read(&mut self, handle: u64, offset: u64, size: u32) -> Answer {
        self.ask(Opcode::Read, 0, transfer(handle, offset, size).as_bytes(), size).await
    }
}

pub(super) fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

pub(super) fn transfer(handle: u64, offset: u64, size: u32) -> TransferIn {
    TransferIn { handle, offset, size, transfer_flags: 0, lock_owner: 0, flags: 0, padding: 0 }
}
