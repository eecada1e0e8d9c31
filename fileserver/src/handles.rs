//! What a client has open.

use executor::Fd;
use rustix::io::Errno;

use crate::Result;
use crate::inodes::InodeId;
use crate::ledger::{HandleRecord, Ledger};

/// The most handles at a time; the limit on descriptors is usually lower.
pub(crate) const MAX_HANDLES: usize = 1 << 17;

/// Names a handle to a client: a slot, and in the upper half how often the slot was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

impl HandleId {
    fn new(slot: usize, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | slot as u64)
    }

    pub(crate) fn slot(self) -> usize {
        self.0 as u32 as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// An open file or directory.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) generation: u32,
    pub(crate) inode: InodeId,
    /// `open` flags, to open it again.
    pub(crate) flags: u64,
    /// None until a successor needs it.
    pub(crate) file: Option<Fd>,
    /// Where in a directory the next entries come from; none if that is not known.
    pub(crate) position: Option<u64>,
}

#[derive(Debug)]
enum Slot {
    Free(u32),
    Taken(Handle),
}

/// All handles.
#[derive(Debug)]
pub(crate) struct Handles {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// A predecessor gave some out.
    inherited: bool,
}

impl Handles {
    /// As the ledger says; the files are opened when they are used.
    pub(crate) fn restore(ledger: &Ledger) -> Self {
        let mut handles = Self { slots: Vec::new(), free: Vec::new(), inherited: false };
        for slot in 0..ledger.handles_reach() {
            let (generation, record) = ledger.handle(slot);
            handles.slots.push(match record {
                Some(HandleRecord { inode, flags, .. }) => {
                    handles.inherited = true;
                    Slot::Taken(Handle { generation, inode, flags, file: None, position: None })
                }
                None => {
                    handles.free.push(slot as u32);
                    Slot::Free(generation)
                }
            });
        }
        handles
    }

    /// All that there are, with the inodes that they are open on.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, InodeId)> {
        self.slots.iter().enumerate().filter_map(|(slot, content)| match content {
            Slot::Taken(handle) => Some((slot as u32, handle.inode)),
            Slot::Free(_) => None,
        })
    }

    /// Whether a predecessor gave out some, which may have no files yet.
    pub(crate) fn are_inherited(&self) -> bool {
        self.inherited
    }

    /// Whether there is room for one more.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty() || self.slots.len() < MAX_HANDLES
    }

    pub(crate) fn insert(
        &mut self,
        ledger: &Ledger,
        inode: InodeId,
        flags: u64,
        file: Fd,
    ) -> Result<HandleId> {
        if !self.has_room() {
            return Err(Errno::MFILE);
        }
        let slot = self.free.pop().map_or(self.slots.len(), |slot| slot as usize);
        let generation = match self.slots.get(slot) {
            Some(Slot::Free(generation)) => *generation,
            _ => 0,
        };
        ledger.put_handle(slot, &HandleRecord { generation, inode, flags });
        let handle = Handle { generation, inode, flags, file: Some(file), position: Some(0) };
        match self.slots.get_mut(slot) {
            Some(place) => *place = Slot::Taken(handle),
            None => self.slots.push(Slot::Taken(handle)),
        }
        Ok(HandleId::new(slot, generation))
    }

    /// The handle, or `EBADF`.
    pub(crate) fn get(&self, id: HandleId) -> Result<&Handle> {
        match self.slots.get(id.slot()) {
            Some(Slot::Taken(handle)) if handle.generation == id.generation() => Ok(handle),
            _ => Err(Errno::BADF),
        }
    }

    pub(crate) fn get_mut(&mut self, id: HandleId) -> Result<&mut Handle> {
        match self.slots.get_mut(id.slot()) {
            Some(Slot::Taken(handle)) if handle.generation == id.generation() => Ok(handle),
            _ => Err(Errno::BADF),
        }
    }

    /// The name of the handle in a slot.
    pub(crate) fn id_of(&self, slot: u32) -> Option<HandleId> {
        match self.slots.get(slot as usize)? {
            Slot::Taken(handle) => Some(HandleId::new(slot as usize, handle.generation)),
            Slot::Free(_) => None,
        }
    }

    /// Closes a handle; says what it was open on.
    pub(crate) fn remove(&mut self, ledger: &Ledger, id: HandleId) -> Result<InodeId> {
        let handle = self.get(id)?;
        let (inode, next) = (handle.inode, handle.generation.wrapping_add(1));
        ledger.drop_handle(id.slot(), next);
        self.slots[id.slot()] = Slot::Free(next);
        self.free.push(id.slot() as u32);
        Ok(inode)
    }

    /// Closes all.
    pub(crate) fn clear(&mut self, ledger: &Ledger) {
        for slot in 0..self.slots.len() {
            if let Slot::Taken(handle) = &self.slots[slot] {
                let next = handle.generation.wrapping_add(1);
                ledger.drop_handle(slot, next);
                self.slots[slot] = Slot::Free(next);
                self.free.push(slot as u32);
            }
        }
    }

    /// Closes the files of those that are open on such inodes; they stay, and using them fails.
    pub(crate) fn close_files(&mut self, of: impl Fn(InodeId) -> bool) {
        for slot in &mut self.slots {
            if let Slot::Taken(handle) = slot
                && of(handle.inode)
            {
                handle.file = None;
            }
        }
    }
}
