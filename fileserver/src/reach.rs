//! How a file is reached on this host.
//!
//! ```text
//!   inode ──► parent's descriptor + name ──► statx: still that file? ──► the operation
//!               │ none, or not looked at for a second? found again from its own parent, up to a grant
//!               └ a file without a name (or with a new one): through a handle that is open on it
//! ```

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use executor::Fd;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::identity::{self, Look};
use crate::inodes::InodeId;
use crate::name::Name;
use crate::tree::Tree;
use crate::{Result, beneath};

/// The most directories above each other that are opened again for one request.
const MOST_DEPTH: usize = 4096;
/// For how long a directory is taken to be where it was found. One that somebody moves out of its grant
/// is gone for the client after that time at the latest, and looking costs a call per directory.
const TRUST: Duration = Duration::from_secs(1);

/// How a file is reached.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack, for one request")]
pub(crate) enum Spot {
    /// A directory's descriptor.
    Directory(Rc<OwnedFd>),
    /// A name in a directory.
    Named(Rc<OwnedFd>, Name),
    /// A file that is open.
    Open(Fd),
}

impl Tree {
    /// A directory's descriptor.
    pub(crate) fn node(&mut self, id: InodeId) -> Result<Rc<OwnedFd>> {
        if let Some(node) = self.trusted_node(id)? {
            return Ok(node);
        }
        let mut above = vec![id];
        let grant = self.inodes.get(id)?.grant;
        let mut at = loop {
            let last = above[above.len() - 1];
            let parent = self.inodes.get(last)?.parent;
            if above.len() == MOST_DEPTH || self.inodes.get(parent)?.grant != grant {
                return Err(Errno::STALE);
            }
            match self.trusted_node(parent)? {
                Some(node) => break node,
                None => above.push(parent),
            }
        };
        for id in above.into_iter().rev() {
            at = self.find_again(&at, id)?;
        }
        Ok(at)
    }

    /// A directory's descriptor, if it has one and was found where it belongs not long ago.
    fn trusted_node(&mut self, id: InodeId) -> Result<Option<Rc<OwnedFd>>> {
        let (inode, granted) = self.check(id)?;
        if inode.kind != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        if inode.identity == granted.identity {
            return Ok(Some(granted.directory.clone()));
        }
        let inode = self.inodes.get_mut(id)?;
        if inode.trusted_until.is_none_or(|until| until <= executor::now()) {
            return Ok(None);
        }
        inode.used = true;
        Ok(inode.node.clone())
    }

    /// Finds a directory in its parent, and opens it if it has no descriptor.
    fn find_again(&mut self, at: &Rc<OwnedFd>, id: InodeId) -> Result<Rc<OwnedFd>> {
        let name = self.ledger.name(id.slot()).ok_or(Errno::STALE)?;
        let open = self.inodes.get(id)?.node.clone();
        let node = match open {
            Some(node) => {
                let look = identity::look(at, name.as_c_str());
                self.expect(id, look)?;
                node
            }
            None => {
                let node = self.with_reserve(|| beneath::open_node(at, name.as_c_str()));
                let node = node.map_err(|errno| match errno {
                    Errno::MFILE | Errno::NFILE | Errno::ACCESS => errno,
                    _ => Errno::STALE,
                })?;
                self.expect(id, identity::look_at(&node))?;
                self.descriptors.add_node();
                Rc::new(node)
            }
        };
        let inode = self.inodes.get_mut(id)?;
        inode.node = Some(node.clone());
        inode.used = true;
        inode.trusted_until = Some(executor::now() + TRUST);
        Ok(node)
    }

    /// The inode is what was seen, or it is stale.
    fn expect(&self, id: InodeId, look: Result<Look>) -> Result<()> {
        match look {
            Ok(look) if look.identity == self.inodes.get(id)?.identity => Ok(()),
            _ => Err(Errno::STALE),
        }
    }

    /// How to reach an inode, and what it looks like by now.
    pub(crate) fn spot(&mut self, id: InodeId) -> Result<(Spot, Look)> {
        let (inode, _) = self.check(id)?;
        let (kind, identity, parent) = (inode.kind, inode.identity, inode.parent);
        if kind == FileType::Directory {
            match self.node(id) {
                Ok(node) => {
                    let look = identity::look_at(&node)?;
                    return Ok((Spot::Directory(node), look));
                }
                Err(Errno::STALE) => {}
                Err(errno) => return Err(errno),
            }
        } else if let Some(name) = self.ledger.name(id.slot()) {
            let found = self.node(parent).and_then(|at| {
                let look = identity::look(&at, name.as_c_str())?;
                Ok((at, look))
            });
            match found {
                Ok((at, look)) if look.identity == identity => {
                    return Ok((Spot::Named(at, name), look));
                }
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => {}
                Err(errno) => return Err(errno),
            }
        }
        let slot = *self.inodes.get(id)?.handles.first().ok_or(Errno::STALE)?;
        let handle = self.handles.id_of(slot).and_then(|handle| self.handles.get(handle).ok());
        let file = handle.and_then(|handle| handle.file.clone()).ok_or(Errno::STALE)?;
        let look = identity::look_at(&file)?;
        Ok((Spot::Open(file), look))
    }

    /// Opens a file of an inode that has a name.
    pub(crate) fn open_inode(&mut self, id: InodeId, flags: OFlags) -> Result<(OwnedFd, Look)> {
        if let Some(opened) = self.open_known(id, flags)? {
            return Ok(opened);
        }
        let (spot, look) = self.spot(id)?;
        let (at, name) = match &spot {
            Spot::Directory(node) => (node, c"."),
            Spot::Named(at, name) => (at, name.as_c_str()),
            Spot::Open(_) => return Err(Errno::STALE),
        };
        match look.attributes.kind() {
            FileType::RegularFile | FileType::Directory => {}
            // Whoever wants to talk to a device or a process of this host has no file here.
            FileType::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::NXIO),
        }
        let file = self.with_descriptors(|| beneath::open(at, name, flags, Mode::empty()))?;
        let opened = identity::look_at(&file)?;
        if opened.identity != look.identity {
            return Err(Errno::STALE);
        }
        Ok((file, opened))
    }

    /// Opens a regular file where it was last, without a look before. Where the kernel opens no device, another
    /// file in its place does no harm; that it is another one is seen then. None if it has to be looked for.
    fn open_known(&mut self, id: InodeId, flags: OFlags) -> Result<Option<(OwnedFd, Look)>> {
        let (inode, granted) = self.check(id)?;
        if inode.kind != FileType::RegularFile || !granted.without_devices {
            return Ok(None);
        }
        let (identity, parent) = (inode.identity, inode.parent);
        let Some(name) = self.ledger.name(id.slot()) else { return Ok(None) };
        let Ok(at) = self.node(parent) else { return Ok(None) };
        let opened =
            self.with_descriptors(|| beneath::open(&at, name.as_c_str(), flags, Mode::empty()));
        let file = match opened {
            Err(Errno::MFILE) => return Err(Errno::MFILE),
            Err(_) => return Ok(None),
            Ok(file) => file,
        };
        let look = identity::look_at(&file)?;
        Ok((look.identity == identity).then_some((file, look)))
    }
}
