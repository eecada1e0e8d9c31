//! What a server must not forget when it dies, in memory that somebody else keeps.
//!
//! ```text
//!   +--------+-----------------+-------------------+-----------------+-----------+
//!   | header | journal         | handles           | inodes          | fids      |
//!   +--------+-----------------+-------------------+-----------------+-----------+
//!   header    magic, shape, words of the protocol, how far handles, inodes and fids reach
//!   journal   of each place of a request: whose it is, how far it came, its answer
//!   handle    state and generation | inode | flags
//!   inode     state, kind and generation | lookups | parent | grant | identity | name
//!   fid       state and the client's number | inode | handle | user
//! ```
//!
//! Fids are what clients of 9P call files by; the ledgers of other protocols have none.
//!
//! The memory is as long as it can ever be needed and takes pages only where something was written.
//! An entry's first word is stored last when it is made and first when it goes, so that an entry is
//! there or not, wherever the process died.
//!
//! A successor takes what it finds for claims: names are checked, files have to be what they were,
//! and everything is reached from the granted directories. So a process that wrote nonsense here has
//! harmed its client only.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, MemfdFlags, SealFlags};
use thiserror::Error;

use crate::handles::{HandleId, MAX_HANDLES};
use crate::identity::Identity;
use crate::inodes::{InodeId, MAX_INODES};
use crate::name::Name;
use crate::words::SharedWords;

const MAGIC: u64 = 0x7669_6673_6c65_6401;

const HEADER_WORDS: usize = 16;
const SHAPE: usize = 1;
const HANDLES_REACH: usize = 2;
const INODES_REACH: usize = 3;
/// Words that belong to the protocol.
const PROTOCOL: usize = 4;
/// How many of these there are.
const PROTOCOL_WORDS: usize = 8;

/// How far fids reach.
const FIDS_REACH: usize = PROTOCOL + PROTOCOL_WORDS;

/// Owner, state and length, answer: room for that of a creation (FUSE: 160 bytes).
const PLACE_WORDS: usize = 32;
/// Most bytes of an answer that is kept.
const ANSWER_BYTES: usize = (PLACE_WORDS - 3) * 8;
const HANDLE_WORDS: usize = 4;
const INODE_WORDS: usize = 41;
const NAME: usize = 9;
const FID_WORDS: usize = 4;

const LIVE: u64 = 1;
/// Of a fid: it has a handle.
const OPEN: u64 = 2;
const BEGUN: u64 = 1 << 32;
const DONE: u64 = 2 << 32;

/// A ledger that cannot be made or used.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// A system call on its memory failed.
    #[error("cannot {action} the memory of a file server's ledger")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The memory is not a ledger, or is one for another number of requests.
    #[error("the memory is no file server's ledger for {} requests", shape.places)]
    Mismatch {
        /// What was asked for.
        shape: Shape,
    },
}

/// What there is room for beside inodes and handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Requests at a time.
    pub places: usize,
    /// What a client of 9P calls files by.
    pub fids: usize,
}

impl Shape {
    fn word(self) -> u64 {
        (self.fids as u64) << 32 | self.places as u64
    }
}

/// The memory itself.
#[derive(Debug)]
pub struct Ledger {
    words: SharedWords,
    shape: Shape,
}

/// An inode as the ledger has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InodeRecord {
    pub(crate) generation: u32,
    pub(crate) kind: FileType,
    pub(crate) lookups: u64,
    pub(crate) parent: InodeId,
    pub(crate) grant: u32,
    pub(crate) identity: Identity,
}

/// A handle as the ledger has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HandleRecord {
    pub(crate) generation: u32,
    pub(crate) inode: InodeId,
    pub(crate) flags: u64,
}

/// What a client of 9P calls by a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FidRecord {
    /// The client's number.
    pub number: u32,
    /// The file.
    pub inode: InodeId,
    /// If it is open.
    pub handle: Option<HandleId>,
    /// On whose behalf.
    pub uid: u32,
}

/// What a predecessor did for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Past {
    /// Nothing.
    Nothing,
    /// It began: the change may have been made.
    Begun,
    /// It was done, with this error number, or zero and this answer.
    Done((i32, Vec<u8>)),
}

impl Ledger {
    /// New memory, with nothing in it.
    pub fn create(shape: Shape) -> Result<OwnedFd, LedgerError> {
        let system = |action| {
            move |errno: rustix::io::Errno| LedgerError::System { action, source: errno.into() }
        };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("fs-ledger", flags).map_err(system("create"))?;
        let bytes = Self::length(shape) * size_of::<u64>();
        rustix::fs::ftruncate(&file, bytes as u64).map_err(system("size"))?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(system("seal"))?;
        let words = SharedWords::map(file.as_fd(), HEADER_WORDS).map_err(system("map"))?;
        Self { words, shape }.mark();
        Ok(file)
    }

    /// Memory that ends with this process, for a server without a successor.
    pub fn private(shape: Shape) -> Result<Self, LedgerError> {
        let words = SharedWords::anonymous(Self::length(shape))
            .map_err(|errno| LedgerError::System { action: "map", source: errno.into() })?;
        let ledger = Self { words, shape };
        ledger.mark();
        Ok(ledger)
    }

    /// Says what the memory is.
    fn mark(&self) {
        self.words.store(SHAPE, self.shape.word());
        self.words.store(0, MAGIC);
    }

    /// Takes over memory that [`Ledger::create`] made.
    pub fn attach(file: impl AsFd, shape: Shape) -> Result<Self, LedgerError> {
        let file = file.as_fd();
        let system = |action| {
            move |errno: rustix::io::Errno| LedgerError::System { action, source: errno.into() }
        };
        let length = Self::length(shape);
        let bytes = rustix::fs::fstat(file).map_err(system("examine"))?.st_size as u64;
        let seals = rustix::fs::fcntl_get_seals(file).map_err(system("examine"))?;
        if bytes < (length * size_of::<u64>()) as u64 || !seals.contains(SealFlags::SHRINK) {
            return Err(LedgerError::Mismatch { shape });
        }
        let words = SharedWords::map(file, length).map_err(system("map"))?;
        if [words.load(0), words.load(SHAPE)] != [MAGIC, shape.word()] {
            return Err(LedgerError::Mismatch { shape });
        }
        Ok(Self { words, shape })
    }

    fn length(shape: Shape) -> usize {
        let fixed = MAX_HANDLES * HANDLE_WORDS + MAX_INODES * INODE_WORDS;
        HEADER_WORDS + shape.places * PLACE_WORDS + fixed + shape.fids * FID_WORDS
    }

    /// What there is room for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// A word of the protocol.
    pub fn protocol_word(&self, index: usize) -> u64 {
        assert!(index < PROTOCOL_WORDS, "a word of the protocol");
        self.words.load(PROTOCOL + index)
    }

    /// Keeps a word of the protocol.
    pub fn set_protocol_word(&self, index: usize, word: u64) {
        assert!(index < PROTOCOL_WORDS, "a word of the protocol");
        self.words.store(PROTOCOL + index, word);
    }

    fn handle_at(&self, slot: usize) -> usize {
        HEADER_WORDS + self.shape.places * PLACE_WORDS + slot * HANDLE_WORDS
    }

    fn inode_at(&self, slot: usize) -> usize {
        self.handle_at(MAX_HANDLES) + slot * INODE_WORDS
    }

    fn fid_at(&self, slot: usize) -> usize {
        assert!(slot < self.shape.fids, "a slot of a fid");
        self.inode_at(MAX_INODES) + slot * FID_WORDS
    }

    /// How many slots of fids were ever used.
    pub fn fids_reach(&self) -> usize {
        (self.words.load(FIDS_REACH) as usize).min(self.shape.fids)
    }

    /// Notes a fid in a slot.
    pub fn put_fid(&self, slot: usize, record: &FidRecord) {
        let at = self.fid_at(slot);
        // None while its words do not belong together.
        self.words.store(at, 0);
        self.words.store(at + 1, record.inode.0);
        self.words.store(at + 2, record.handle.map_or(0, |handle| handle.0));
        self.words.store(at + 3, u64::from(record.uid));
        let open = if record.handle.is_some() { OPEN } else { 0 };
        self.words.store(at, u64::from(record.number) << 32 | open | LIVE);
        if slot >= self.fids_reach() {
            self.words.store(FIDS_REACH, slot as u64 + 1);
        }
    }

    /// There is no fid in a slot any more.
    pub fn drop_fid(&self, slot: usize) {
        self.words.store(self.fid_at(slot), 0);
    }

    /// What is in a slot.
    pub fn fid(&self, slot: usize) -> Option<FidRecord> {
        let at = self.fid_at(slot);
        let first = self.words.load(at);
        let handle = HandleId(self.words.load(at + 2));
        (first & LIVE != 0).then(|| FidRecord {
            number: (first >> 32) as u32,
            inode: InodeId(self.words.load(at + 1)),
            handle: (first & OPEN != 0).then_some(handle),
            uid: self.words.load(at + 3) as u32,
        })
    }

    /// How many slots of handles were ever used.
    pub(crate) fn handles_reach(&self) -> usize {
        (self.words.load(HANDLES_REACH) as usize).min(MAX_HANDLES)
    }

    /// How many slots of inodes were ever used.
    pub(crate) fn inodes_reach(&self) -> usize {
        (self.words.load(INODES_REACH) as usize).min(MAX_INODES)
    }

    pub(crate) fn put_handle(&self, slot: usize, record: &HandleRecord) {
        let at = self.handle_at(slot);
        self.words.store(at + 1, record.inode.0);
        self.words.store(at + 2, record.flags);
        self.words.store(at, u64::from(record.generation) << 32 | LIVE);
        if slot >= self.handles_reach() {
            self.words.store(HANDLES_REACH, slot as u64 + 1);
        }
    }

    pub(crate) fn drop_handle(&self, slot: usize, generation: u32) {
        self.words.store(self.handle_at(slot), u64::from(generation) << 32);
    }

    /// The generation of a slot, and what is in it.
    pub(crate) fn handle(&self, slot: usize) -> (u32, Option<HandleRecord>) {
        let at = self.handle_at(slot);
        let first = self.words.load(at);
        let generation = (first >> 32) as u32;
        let record = HandleRecord {
            generation,
            inode: InodeId(self.words.load(at + 1)),
            flags: self.words.load(at + 2),
        };
        (generation, (first & LIVE != 0).then_some(record))
    }

    pub(crate) fn put_inode(&self, slot: usize, record: &InodeRecord, name: Option<&Name>) {
        let at = self.inode_at(slot);
        self.words.store(at + 1, record.lookups);
        self.words.store(at + 2, record.parent.0);
        self.words.store(at + 3, u64::from(record.grant));
        self.words.store(at + 4, record.identity.device);
        self.words.store(at + 5, record.identity.inode);
        self.words.store(at + 6, record.identity.birth);
        self.store_name(at, name);
        let kind = u64::from(record.kind.as_raw_mode() >> 12) << 8;
        self.words.store(at, u64::from(record.generation) << 32 | kind | LIVE);
        if slot >= self.inodes_reach() {
            self.words.store(INODES_REACH, slot as u64 + 1);
        }
    }

    pub(crate) fn drop_inode(&self, slot: usize, generation: u32) {
        self.words.store(self.inode_at(slot), u64::from(generation) << 32);
    }

    /// The generation of a slot, and what is in it.
    pub(crate) fn inode(&self, slot: usize) -> (u32, Option<InodeRecord>) {
        let at = self.inode_at(slot);
        let first = self.words.load(at);
        let generation = (first >> 32) as u32;
        let record = InodeRecord {
            generation,
            kind: FileType::from_raw_mode(((first >> 8) as u32 & 0xf) << 12),
            lookups: self.words.load(at + 1),
            parent: InodeId(self.words.load(at + 2)),
            grant: self.words.load(at + 3) as u32,
            identity: Identity {
                device: self.words.load(at + 4),
                inode: self.words.load(at + 5),
                birth: self.words.load(at + 6),
            },
        };
        (generation, (first & LIVE != 0).then_some(record))
    }

    pub(crate) fn set_lookups(&self, slot: usize, lookups: u64) {
        self.words.store(self.inode_at(slot) + 1, lookups);
    }

    /// The inode is reached by another name from now on.
    pub(crate) fn set_place(&self, slot: usize, parent: InodeId, name: Option<&Name>) {
        let at = self.inode_at(slot);
        // None while the two do not belong together.
        self.words.store(at + 7, 0);
        self.words.store(at + 2, parent.0);
        self.store_name(at, name);
    }

    fn store_name(&self, at: usize, name: Option<&Name>) {
        if let Some(name) = name {
            self.words.store_bytes(at + NAME, name.as_bytes());
        }
        let length = name.map_or(0, |name| name.as_bytes().len());
        self.words.store(at + 7, length as u64);
    }

    /// The name of an inode, if it has one that is known.
    pub(crate) fn name(&self, slot: usize) -> Option<Name> {
        let at = self.inode_at(slot);
        let length = self.words.load(at + 7).min(255) as usize;
        let mut bytes = [0; 256];
        self.words.load_bytes(at + NAME, &mut bytes[..length]);
        Name::new(&bytes[..length]).ok()
    }

    /// Forgets what was noted about requests: their numbers will be used again.
    pub fn clear_journals(&self) {
        for place in 0..self.shape.places {
            self.words.store(HEADER_WORDS + place * PLACE_WORDS, 0);
        }
    }

    /// The journal of a request's place.
    pub fn journal(&self, place: usize) -> Journal<'_> {
        assert!(place < self.shape.places, "a place of a request");
        Journal { words: &self.words, at: HEADER_WORDS + place * PLACE_WORDS }
    }
}

/// What is noted about a request that must not be carried out twice.
///
/// A request that a server died with is repeated by its successor, in the same place. A journal
/// tells the successor what has been done.
#[derive(Debug)]
pub struct Journal<'a> {
    words: &'a SharedWords,
    at: usize,
}

impl Journal<'_> {
    /// What was done for this request, if it is the one that is noted.
    pub fn past(&self, unique: u64) -> Past {
        let state = self.words.load(self.at + 1);
        if unique == 0 || self.words.load(self.at) != unique {
            return Past::Nothing;
        }
        match state & (BEGUN | DONE) {
            BEGUN => Past::Begun,
            DONE => {
                let length = (state as u32 as usize).min(ANSWER_BYTES);
                let mut answer = vec![0; length];
                self.words.load_bytes(self.at + 3, &mut answer);
                // An error number as the kernel's, which ends at 4095.
                let error = (self.words.load(self.at + 2) & 0xfff) as i32;
                Past::Done((error, answer))
            }
            _ => Past::Nothing,
        }
    }

    /// The request is about to be carried out.
    pub fn begin(&self, unique: u64) {
        self.words.store(self.at + 1, 0);
        self.words.store(self.at, unique);
        self.words.store(self.at + 1, BEGUN);
    }

    /// Nothing was done: what comes here next is another request, though it may have the same number.
    pub fn clear(&self) {
        self.words.store(self.at, 0);
    }

    /// It was carried out. An answer that is too long is not kept, and the request counts as begun.
    pub fn done(&self, error: i32, answer: &[u8]) {
        if answer.len() <= ANSWER_BYTES {
            self.words.store(self.at + 2, error as u64);
            self.words.store_bytes(self.at + 3, answer);
            self.words.store(self.at + 1, DONE | answer.len() as u64);
        }
    }
}
