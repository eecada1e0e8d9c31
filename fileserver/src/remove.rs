//! Removing names, and moving them.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use crate::Result;
use crate::identity;
use crate::inodes::InodeId;
use crate::name::Name;
use crate::tree::Tree;

/// What a move does with a name that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// It replaces it.
    Replace,
    /// It fails.
    Refuse,
    /// The two change places.
    Swap,
}

impl Exchange {
    /// From the flags of `renameat2`. What is not known, and a white-out, which is a device file, is
    /// `EINVAL`.
    pub fn from_flags(flags: u32) -> Result<Self> {
        match flags {
            0 => Ok(Self::Replace),
            libc::RENAME_NOREPLACE => Ok(Self::Refuse),
            libc::RENAME_EXCHANGE => Ok(Self::Swap),
            _ => Err(Errno::INVAL),
        }
    }

    fn flags(self) -> RenameFlags {
        match self {
            Self::Replace => RenameFlags::empty(),
            Self::Refuse => RenameFlags::NOREPLACE,
            Self::Swap => RenameFlags::EXCHANGE,
        }
    }
}

impl Tree {
    /// By which name of which directory an inode is known, if it still has that name: the one that it
    /// was found by last. `EBUSY` for what is shared itself, `ESTALE` for what lost its name.
    pub fn whereabouts(&mut self, inode: InodeId) -> Result<(InodeId, Name)> {
        let (known, granted) = self.check(inode)?;
        if known.identity == granted.identity {
            return Err(Errno::BUSY);
        }
        let (parent, identity) = (known.parent, known.identity);
        let name = self.ledger.name(inode.slot()).ok_or(Errno::STALE)?;
        let at = self.node(parent)?;
        match identity::look(&at, name.as_c_str()) {
            Ok(look) if look.identity == identity => Ok((parent, name)),
            Ok(_) | Err(Errno::NOENT) => Err(Errno::STALE),
            Err(errno) => Err(errno),
        }
    }

    /// Removes the name of something that is no directory.
    pub fn remove(&mut self, parent: InodeId, name: &Name) -> Result<()> {
        self.check_writable(parent)?;
        let at = self.node(parent)?;
        self.keep_open(&at, parent, name);
        rustix::fs::unlinkat(at, name.as_c_str(), AtFlags::empty())
    }

    /// Removes an empty directory.
    pub fn remove_directory(&mut self, parent: InodeId, name: &Name) -> Result<()> {
        self.check_writable(parent)?;
        let at = self.node(parent)?;
        rustix::fs::unlinkat(at, name.as_c_str(), AtFlags::REMOVEDIR)
    }

    /// Moves a name.
    pub fn rename(
        &mut self,
        from: (InodeId, &Name),
        to: (InodeId, &Name),
        exchange: Exchange,
    ) -> Result<()> {
        self.check_writable(from.0)?;
        self.check_writable(to.0)?;
        if self.inodes.get(from.0)?.grant != self.inodes.get(to.0)?.grant {
            return Err(Errno::XDEV);
        }
        let (old, new) = (self.node(from.0)?, self.node(to.0)?);
        let (old_name, new_name) = (from.1.as_c_str(), to.1.as_c_str());
        if exchange == Exchange::Replace {
            self.keep_open(&new, to.0, to.1);
        }
        rustix::fs::renameat_with(&old, old_name, &new, new_name, exchange.flags())?;
        self.follow(to);
        if exchange == Exchange::Swap {
            self.follow(from);
        }
        Ok(())
    }

    /// What is about to lose its name may be open by handles that a predecessor gave out: their files
    /// are opened while they can be found.
    fn keep_open(&mut self, at: &OwnedFd, parent: InodeId, name: &Name) {
        if !self.handles.are_inherited() {
            return;
        }
        let Ok(look) = identity::look(at, name.as_c_str()) else { return };
        let Ok(grant) = self.inodes.get(parent).map(|inode| inode.grant) else { return };
        let Some(id) = self.inodes.find(grant, look.identity) else { return };
        let Ok(slots) = self.inodes.get(id).map(|inode| inode.handles.clone()) else { return };
        for slot in slots {
            let Some(handle) = self.handles.id_of(slot) else { continue };
            // One that cannot be opened is stale, as if this server had died a moment later.
            let _ = self.file(handle);
        }
    }

    /// The client knows what has this name now: it is reached by it from now on.
    fn follow(&mut self, (parent, name): (InodeId, &Name)) {
        let Ok(at) = self.node(parent) else { return };
        let Ok(look) = identity::look(&at, name.as_c_str()) else { return };
        let Ok(grant) = self.inodes.get(parent).map(|inode| inode.grant) else { return };
        if let Some(id) = self.inodes.find(grant, look.identity)
            && id != InodeId::ROOT
        {
            self.inodes.move_to(&self.ledger, id, parent, Some(name));
        }
    }
}
