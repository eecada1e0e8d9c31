//! What a client calls files by.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use fileserver::{Errno, FidRecord, HandleId, InodeId, Ledger, Name, Result};

/// In the ledger: the fid is one of an extended attribute, which was lost with the process.
const VALUE: HandleId = HandleId(u64::MAX - 1);

/// What a fid is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// To walk from, and to be opened.
    Idle,
    /// To read and write.
    Open(HandleId),
    /// To read or write an extended attribute.
    Value,
    /// To nothing: what it was of an extended attribute went with a predecessor.
    Lost,
}

/// Where a file was found, in short: two places are very likely not the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Place {
    /// Nobody knows.
    pub(super) const UNKNOWN: Self = Self(0);

    pub(super) fn new(parent: InodeId, name: &Name) -> Self {
        let mut hasher = DefaultHasher::new();
        (parent, name.as_bytes()).hash(&mut hasher);
        Self(hasher.finish() | 1)
    }
}

/// What a client calls by a number. It holds its inode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fid {
    pub(super) inode: InodeId,
    pub(super) state: State,
    /// On whose behalf things are done.
    pub(super) uid: u32,
    /// By which name it was walked to.
    pub(super) place: Place,
}

impl Fid {
    pub(super) fn handle(&self) -> Result<HandleId> {
        match self.state {
            State::Open(handle) => Ok(handle),
            State::Lost => Err(Errno::STALE),
            State::Idle | State::Value => Err(Errno::BADF),
        }
    }

    fn record(&self, number: u32) -> FidRecord {
        let handle = match self.state {
            State::Idle => None,
            State::Open(handle) => Some(handle),
            State::Value | State::Lost => Some(VALUE),
        };
        FidRecord { number, inode: self.inode, handle, uid: self.uid }
    }
}

/// All fids of a client.
#[derive(Debug)]
pub(super) struct Fids {
    /// By number, with the slots of the ledger that they are in.
    table: HashMap<u32, (usize, Fid)>,
    free: Vec<u32>,
    /// Slots that were ever used.
    reach: usize,
    most: usize,
}

impl Fids {
    /// As the ledger says.
    pub(super) fn restore(ledger: &Ledger) -> Self {
        let (reach, most) = (ledger.fids_reach(), ledger.shape().fids);
        let mut fids = Self { table: HashMap::new(), free: Vec::new(), reach, most };
        for slot in 0..reach {
            let Some(record) = ledger.fid(slot) else {
                fids.free.push(slot as u32);
                continue;
            };
            let state = match record.handle {
                None => State::Idle,
                Some(VALUE) => State::Lost,
                Some(handle) => State::Open(handle),
            };
            let FidRecord { number, inode, uid, .. } = record;
            let fid = Fid { inode, state, uid, place: Place::UNKNOWN };
            fids.table.insert(number, (slot, fid));
        }
        fids
    }

    /// The fid, or `EBADF`.
    pub(super) fn get(&self, number: u32) -> Result<Fid> {
        self.table.get(&number).map(|(_, fid)| *fid).ok_or(Errno::BADF)
    }

    pub(super) fn is_taken(&self, number: u32) -> bool {
        self.table.contains_key(&number)
    }

    /// Whether there is room for one more.
    pub(super) fn check_room(&self) -> Result<()> {
        if self.free.is_empty() && self.reach >= self.most { Err(Errno::NFILE) } else { Ok(()) }
    }

    /// Sets a fid, which may be there already.
    pub(super) fn set(&mut self, ledger: &Ledger, number: u32, fid: Fid) -> Result<()> {
        let slot = match self.table.get(&number) {
            Some((slot, _)) => *slot,
            None => match self.free.pop() {
                Some(slot) => slot as usize,
                None if self.reach < self.most => {
                    self.reach += 1;
                    self.reach - 1
                }
                None => return Err(Errno::NFILE),
            },
        };
        ledger.put_fid(slot, &fid.record(number));
        self.table.insert(number, (slot, fid));
        Ok(())
    }

    /// Takes a fid away.
    pub(super) fn remove(&mut self, ledger: &Ledger, number: u32) -> Result<Fid> {
        let (slot, fid) = self.table.remove(&number).ok_or(Errno::BADF)?;
        ledger.drop_fid(slot);
        self.free.push(slot as u32);
        Ok(fid)
    }

    /// Takes all away.
    pub(super) fn clear(&mut self, ledger: &Ledger) {
        for (_, (slot, _)) in self.table.drain() {
            ledger.drop_fid(slot);
            self.free.push(slot as u32);
        }
    }
}
