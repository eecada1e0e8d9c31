//! The files that a client knows.
//!
//! A client gets an inode with each look-up and forgets it when it is done. An inode is reached by
//! its parent and its name, so it keeps its parent; [`crate::reach`] says more.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use executor::Instant;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::Result;
use crate::identity::Identity;
use crate::ledger::{InodeRecord, Ledger};
use crate::name::Name;

/// The most inodes that clients may know at a time. Linux forgets what it has no memory for; 4 GiB
/// of its memory hold about as many.
pub const MAX_INODES: usize = 1 << 20;

/// Names an inode to a client: a slot, and in the upper half how often the slot was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InodeId(pub u64);

impl InodeId {
    /// The root of the tree, which nobody has to look up.
    pub const ROOT: Self = Self(1);

    fn new(slot: usize, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | (slot as u64 + 1))
    }

    pub(crate) fn slot(self) -> usize {
        // Zero becomes a slot that there is not.
        (self.0 as u32).wrapping_sub(1) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What is known about a file.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) generation: u32,
    pub(crate) lookups: u64,
    pub(crate) parent: InodeId,
    /// Inodes that are reached through it.
    pub(crate) children: u32,
    pub(crate) grant: u32,
    pub(crate) kind: FileType,
    pub(crate) identity: Identity,
    /// A directory's descriptor, while there is one.
    pub(crate) node: Option<Rc<OwnedFd>>,
    /// Until when it is taken for granted that the directory is where it was.
    pub(crate) trusted_until: Option<Instant>,
    /// Whether the descriptor was used since somebody looked for one to close.
    pub(crate) used: bool,
    /// Slots of handles that are open on it: by these it is reached when it has no name any more.
    pub(crate) handles: Vec<u32>,
}

/// A slot: what is in it, or the generation of the next.
#[derive(Debug)]
enum Slot {
    Free(u32),
    Taken(Inode),
}

/// All inodes.
#[derive(Debug)]
pub(crate) struct Inodes {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_identity: HashMap<(u32, Identity), u32>,
    budget: Budget,
}

/// How many inodes there are in all trees that share it; the most are [`MAX_INODES`].
#[derive(Debug, Clone, Default)]
pub struct Budget(Rc<Cell<usize>>);

impl Budget {
    fn take(&self) -> Result<()> {
        if self.0.get() >= MAX_INODES {
            return Err(Errno::NFILE);
        }
        self.0.set(self.0.get() + 1);
        Ok(())
    }

    fn give_back(&self, count: usize) {
        self.0.set(self.0.get().saturating_sub(count));
    }
}

/// What a new inode is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) parent: InodeId,
    pub(crate) grant: u32,
    pub(crate) kind: FileType,
    pub(crate) identity: Identity,
}

impl Inodes {
    /// As the ledger says. The root's slot is left free.
    pub(crate) fn restore(ledger: &Ledger) -> Self {
        let (slots, free, by_identity) = (Vec::new(), Vec::new(), HashMap::new());
        let mut inodes = Self { slots, free, by_identity, budget: Budget::default() };
        for slot in 0..ledger.inodes_reach() {
            let (generation, record) = ledger.inode(slot);
            let Some(record) = record.filter(|_| slot > 0) else {
                inodes.slots.push(Slot::Free(generation));
                if slot > 0 {
                    inodes.free.push(slot as u32);
                }
                continue;
            };
            inodes.by_identity.insert((record.grant, record.identity), slot as u32);
            inodes.slots.push(Slot::Taken(Inode::from(record)));
            // One tree's are never more than the budget has.
            let _ = inodes.budget.take();
        }
        for slot in 0..inodes.slots.len() {
            if let Slot::Taken(inode) = &inodes.slots[slot] {
                let parent = inode.parent;
                inodes.adopt(parent);
            }
        }
        inodes
    }

    /// Counts from now on with others.
    pub(crate) fn share_budget(&mut self, budget: Budget) {
        let own = self.budget.0.get();
        self.budget.give_back(own);
        budget.0.set(budget.0.get() + own);
        self.budget = budget;
    }

    /// One more inode is reached through this one.
    fn adopt(&mut self, parent: InodeId) {
        if let Ok(parent) = self.get_mut(parent) {
            parent.children += 1;
        }
    }

    /// One inode less is.
    fn release(&mut self, ledger: &Ledger, parent: InodeId) {
        if let Ok(inode) = self.get_mut(parent) {
            inode.children = inode.children.saturating_sub(1);
            self.sweep(ledger, parent);
        }
    }

    /// An inode is reached by another name from now on.
    pub(crate) fn move_to(
        &mut self,
        ledger: &Ledger,
        id: InodeId,
        parent: InodeId,
        name: Option<&Name>,
    ) {
        let Ok(inode) = self.get_mut(id) else { return };
        let before = std::mem::replace(&mut inode.parent, parent);
        ledger.set_place(id.slot(), parent, name);
        self.adopt(parent);
        self.release(ledger, before);
    }

    /// Counts as looked up once more.
    pub(crate) fn hold(&mut self, ledger: &Ledger, id: InodeId) -> Result<()> {
        let inode = self.get_mut(id)?;
        inode.lookups = inode.lookups.saturating_add(1);
        ledger.set_lookups(id.slot(), inode.lookups);
        Ok(())
    }

    /// The root, which has no name and is never forgotten.
    pub(crate) fn set_root(&mut self, root: Inode) {
        let key = (root.grant, root.identity);
        self.by_identity.insert(key, 0);
        match self.slots.first_mut() {
            Some(slot) => *slot = Slot::Taken(root),
            None => self.slots.push(Slot::Taken(root)),
        }
    }

    /// The inode, or `ESTALE`.
    pub(crate) fn get(&self, id: InodeId) -> Result<&Inode> {
        match self.slots.get(id.slot()) {
            Some(Slot::Taken(inode)) if inode.generation == id.generation() => Ok(inode),
            _ => Err(Errno::STALE),
        }
    }

    pub(crate) fn get_mut(&mut self, id: InodeId) -> Result<&mut Inode> {
        match self.slots.get_mut(id.slot()) {
            Some(Slot::Taken(inode)) if inode.generation == id.generation() => Ok(inode),
            _ => Err(Errno::STALE),
        }
    }

    /// The inode of a file, if it is known.
    pub(crate) fn find(&self, grant: u32, identity: Identity) -> Option<InodeId> {
        let slot = *self.by_identity.get(&(grant, identity))?;
        match self.slots.get(slot as usize)? {
            Slot::Taken(inode) => Some(InodeId::new(slot as usize, inode.generation)),
            Slot::Free(_) => None,
        }
    }

    /// Takes one more look-up of a file into account, which was found under this name.
    pub(crate) fn found(
        &mut self,
        ledger: &Ledger,
        found: &Found,
        name: Option<&Name>,
    ) -> Result<InodeId> {
        if let Some(id) = self.find(found.grant, found.identity)
            && self.get(id)?.kind == found.kind
        {
            self.hold(ledger, id)?;
            if id != InodeId::ROOT && name.is_some() {
                let elsewhere = self.get(id)?.parent != found.parent;
                if elsewhere || ledger.name(id.slot()).as_ref() != name {
                    self.move_to(ledger, id, found.parent, name);
                }
            }
            return Ok(id);
        }
        if self.free.is_empty() && self.slots.len() >= MAX_INODES {
            return Err(Errno::NFILE);
        }
        self.budget.take()?;
        let slot = match self.free.pop() {
            Some(slot) => slot as usize,
            None => {
                self.slots.push(Slot::Free(0));
                self.slots.len() - 1
            }
        };
        let generation = match self.slots[slot] {
            Slot::Free(generation) => generation,
            Slot::Taken(_) => unreachable!("a free slot has no inode"),
        };
        let record = InodeRecord {
            generation,
            kind: found.kind,
            lookups: 1,
            parent: found.parent,
            grant: found.grant,
            identity: found.identity,
        };
        ledger.put_inode(slot, &record, name);
        self.by_identity.insert((found.grant, found.identity), slot as u32);
        self.slots[slot] = Slot::Taken(Inode::from(record));
        self.adopt(found.parent);
        Ok(InodeId::new(slot, generation))
    }

    /// The client forgets some look-ups. The inode is gone with the last.
    pub(crate) fn forget(&mut self, ledger: &Ledger, id: InodeId, lookups: u64) {
        if id == InodeId::ROOT {
            return;
        }
        let Ok(inode) = self.get_mut(id) else { return };
        inode.lookups = inode.lookups.saturating_sub(lookups);
        ledger.set_lookups(id.slot(), inode.lookups);
        self.sweep(ledger, id);
    }

    /// Drops an inode that nobody knows and nobody has open, and those above it that were there for it
    /// alone.
    pub(crate) fn sweep(&mut self, ledger: &Ledger, id: InodeId) {
        let mut next = id;
        while let Some(parent) = self.drop_unused(ledger, next) {
            let Ok(inode) = self.get_mut(parent) else { return };
            inode.children = inode.children.saturating_sub(1);
            next = parent;
        }
    }

    /// Drops an inode, and says what its parent was.
    fn drop_unused(&mut self, ledger: &Ledger, id: InodeId) -> Option<InodeId> {
        if id == InodeId::ROOT {
            return None;
        }
        let inode = self.get(id).ok()?;
        if inode.lookups > 0 || inode.children > 0 || !inode.handles.is_empty() {
            return None;
        }
        let (slot, parent) = (id.slot(), inode.parent);
        let (key, next) = ((inode.grant, inode.identity), inode.generation.wrapping_add(1));
        if self.by_identity.get(&key) == Some(&(slot as u32)) {
            self.by_identity.remove(&key);
        }
        ledger.drop_inode(slot, next);
        self.slots[slot] = Slot::Free(next);
        self.free.push(slot as u32);
        self.budget.give_back(1);
        Some(parent)
    }

    /// Forgets all but the root.
    pub(crate) fn clear(&mut self, ledger: &Ledger) {
        for slot in 1..self.slots.len() {
            let Slot::Taken(inode) = &self.slots[slot] else { continue };
            let next = inode.generation.wrapping_add(1);
            ledger.drop_inode(slot, next);
            self.slots[slot] = Slot::Free(next);
            self.free.push(slot as u32);
            self.budget.give_back(1);
        }
        self.by_identity.retain(|_, slot| *slot == 0);
        if let Some(Slot::Taken(root)) = self.slots.first_mut() {
            root.handles.clear();
            root.children = 0;
        }
    }

    /// Takes nothing for granted any more.
    #[cfg(test)]
    pub(crate) fn distrust(&mut self) {
        for slot in &mut self.slots {
            if let Slot::Taken(inode) = slot {
                inode.trusted_until = None;
            }
        }
    }

    /// The slots, for whoever looks for descriptors to close.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Closes the descriptor in a slot, unless it was used since the last time. Says whether.
    pub(crate) fn evict(&mut self, slot: usize) -> bool {
        let Some(Slot::Taken(inode)) = self.slots.get_mut(slot) else { return false };
        if slot == 0 || inode.node.is_none() {
            return false;
        }
        if std::mem::take(&mut inode.used) {
            return false;
        }
        inode.node = None;
        true
    }
}

impl Drop for Inodes {
    fn drop(&mut self) {
        let taken = self.slots.iter().skip(1).filter(|slot| matches!(slot, Slot::Taken(_)));
        self.budget.give_back(taken.count());
    }
}

impl From<InodeRecord> for Inode {
    fn from(record: InodeRecord) -> Self {
        Self {
            generation: record.generation,
            lookups: record.lookups,
            parent: record.parent,
            children: 0,
            grant: record.grant,
            kind: record.kind,
            identity: record.identity,
            node: None,
            trusted_until: None,
            used: false,
            handles: Vec::new(),
        }
    }
}
