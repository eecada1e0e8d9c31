//! The tree: what a client knows, and the way to it on this host.
//!
//! ```text
//!   inode ──► parent's descriptor + name ──► statx: still that file? ──► the operation
//!               │ none, or not looked at for a second? found again from its own parent, up to a grant
//!               └ a file without a name (or with a new one): through a handle that is open on it
//! ```

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use executor::Fd;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::grants::{Access, Grant, GrantId, Granted};
use crate::handles::Handles;
use crate::identity::{self, Attributes, Identity, Look, Time};
use crate::ids::Ids;
use crate::inodes::{Found, Inode, InodeId, Inodes};
use crate::ledger::Ledger;
use crate::name::Name;
use crate::{Result, beneath};

/// The most directories above each other that are opened again for one request.
const MOST_DEPTH: usize = 4096;
/// For how long a directory is taken to be where it was found. One that somebody moves out of its grant
/// is gone for the client after that time at the latest, and looking costs a call per directory.
const TRUST: Duration = Duration::from_secs(1);
/// How many descriptors are closed at a time when there are no more.
const EVICTED: usize = 64;
/// Descriptors that are kept for directories and never given to a client's files, so that a client that
/// has all of its files open can still look around and close them.
const SPARES: usize = 16;
/// The grant of a root that is none.
const NO_GRANT: u32 = u32::MAX;

/// What a look-up found.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The inode, which the client has to forget some time.
    pub inode: InodeId,
    /// What it looks like.
    pub attributes: Attributes,
}

/// A tree of granted directories, for one client. Needs an executor on its thread.
///
/// Its thread's `umask` and working directory are its own: `unshare(CLONE_FS)` where others share
/// the process.
#[derive(Debug)]
pub struct Tree {
    pub(crate) ids: Ids,
    pub(crate) ledger: Ledger,
    pub(crate) inodes: Inodes,
    pub(crate) handles: Handles,
    grants: Vec<Option<Granted>>,
    /// Where the search for descriptors to close goes on.
    hand: usize,
    /// Inodes that have a descriptor.
    nodes: usize,
    /// Descriptors to close when a directory needs one.
    spares: Vec<OwnedFd>,
    pub(crate) umask: Cell<Option<u32>>,
    /// Kept for its capacity: entries of a directory as the kernel gives them.
    pub(crate) entries: Vec<std::mem::MaybeUninit<u8>>,
}

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
    /// A tree whose root is a directory.
    pub fn of_directory(root: Grant, ids: Ids, ledger: Ledger) -> Result<Self> {
        let granted = Granted::new(root, None)?;
        let (identity, grant) = (granted.identity, 0);
        let mut tree = Self::new(ids, ledger, grant, identity);
        tree.grants.push(Some(granted));
        Ok(tree)
    }

    /// A tree whose root has nothing in it but what is granted.
    pub fn of_grants(ids: Ids, ledger: Ledger) -> Self {
        let identity = Identity { device: 0, inode: 1, birth: 0 };
        Self::new(ids, ledger, NO_GRANT, identity)
    }

    fn new(ids: Ids, ledger: Ledger, grant: u32, identity: Identity) -> Self {
        let handles = Handles::restore(&ledger);
        let mut inodes = Inodes::restore(&ledger);
        inodes.set_root(Inode {
            generation: 0,
            lookups: 1,
            parent: InodeId::ROOT,
            grant,
            kind: FileType::Directory,
            identity,
            node: None,
            trusted_until: None,
            used: false,
            handles: Vec::new(),
        });
        let known: Vec<_> = handles.iter().collect();
        for (slot, inode) in known {
            if let Ok(inode) = inodes.get_mut(inode) {
                inode.handles.push(slot);
            }
        }
        let umask = Cell::new(None);
        let (grants, spares, entries) = (Vec::new(), Vec::new(), Vec::new());
        Self { ids, ledger, inodes, handles, grants, hand: 0, nodes: 0, spares, umask, entries }
    }

    /// Shares a directory under a name of the root.
    ///
    /// `EEXIST` if the name is taken. The root of [`Tree::of_directory`] takes no names: `EINVAL`.
    pub fn grant(&mut self, name: &Name, grant: Grant) -> Result<GrantId> {
        if self.inodes.get(InodeId::ROOT)?.grant != NO_GRANT {
            return Err(Errno::INVAL);
        }
        if self.grants.iter().flatten().any(|granted| granted.name.as_ref() == Some(name)) {
            return Err(Errno::EXIST);
        }
        self.grants.push(Some(Granted::new(grant, Some(name))?));
        Ok(GrantId(self.grants.len() as u32 - 1))
    }

    /// A place in the numbers of grants that was used before: a successor numbers as its predecessor
    /// did.
    pub fn skip_grant(&mut self) {
        self.grants.push(None);
    }

    /// Ends a grant: whatever a client knows of it, and has open in it, is stale from now on.
    pub fn revoke(&mut self, grant: GrantId) {
        if let Some(granted) = self.grants.get_mut(grant.0 as usize) {
            *granted = None;
            let inodes = &self.inodes;
            self.handles.close_files(|id| inodes.get(id).is_ok_and(|inode| inode.grant == grant.0));
        }
    }

    /// The grant of that name.
    pub fn grant_named(&self, name: &Name) -> Option<GrantId> {
        let found = self.grants.iter().position(|granted| {
            granted.as_ref().is_some_and(|granted| granted.name.as_ref() == Some(name))
        });
        found.map(|index| GrantId(index as u32))
    }

    /// The client is gone or starts anew: it knows nothing any more.
    pub fn forget_all(&mut self) {
        self.handles.clear(&self.ledger);
        self.inodes.clear(&self.ledger);
        self.nodes = 0;
    }

    /// What the server keeps for a successor.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Looks for a name. The inode counts as looked up once more.
    pub fn look_up(&mut self, parent: InodeId, name: &Name) -> Result<Entry> {
        if self.is_hub(parent)? {
            return self.look_up_grant(name);
        }
        let at = self.node(parent)?;
        let look = identity::look(&at, name.as_c_str())?;
        self.entry(parent, name, &look)
    }

    fn look_up_grant(&mut self, name: &Name) -> Result<Entry> {
        let GrantId(grant) = self.grant_named(name).ok_or(Errno::NOENT)?;
        let granted = self.grants[grant as usize].as_ref().ok_or(Errno::NOENT)?;
        let look = identity::look_at(&granted.directory)?;
        self.entry_of(InodeId::ROOT, grant, name, &look)
    }

    /// What was found under a name, as an inode.
    pub(crate) fn entry(&mut self, parent: InodeId, name: &Name, look: &Look) -> Result<Entry> {
        let (inode, granted) = self.check(parent)?;
        if look.mount != granted.mount {
            return Err(Errno::XDEV);
        }
        let grant = inode.grant;
        self.entry_of(parent, grant, name, look)
    }

    fn entry_of(&mut self, parent: InodeId, grant: u32, name: &Name, look: &Look) -> Result<Entry> {
        let (kind, identity) = (look.attributes.kind(), look.identity);
        let found = Found { parent, grant, kind, identity };
        let inode = self.inodes.found(&self.ledger, &found, Some(name))?;
        Ok(Entry { inode, attributes: self.show(look) })
    }

    /// A client forgets some of its look-ups of an inode.
    pub fn forget(&mut self, inode: InodeId, lookups: u64) {
        self.inodes.forget(&self.ledger, inode, lookups);
    }

    /// Attributes as the client sees them.
    pub(crate) fn show(&self, look: &Look) -> Attributes {
        let (uid, gid) = self.ids.to_client(look.attributes.uid, look.attributes.gid);
        Attributes { uid, gid, ..look.attributes }
    }

    /// Whether it is a root that only has grants in it.
    pub(crate) fn is_hub(&self, id: InodeId) -> Result<bool> {
        Ok(self.inodes.get(id)?.grant == NO_GRANT)
    }

    /// The names of the grants, for a root that only has those.
    pub(crate) fn grant_names(&self) -> impl Iterator<Item = (usize, &Granted, &Name)> {
        self.grants.iter().enumerate().filter_map(|(index, granted)| {
            let granted = granted.as_ref()?;
            Some((index, granted, granted.name.as_ref()?))
        })
    }

    pub(crate) fn hub_attributes() -> Attributes {
        Attributes {
            inode: 1,
            size: 0,
            blocks: 0,
            accessed: Time::default(),
            modified: Time::default(),
            changed: Time::default(),
            born: Time::default(),
            mode: FileType::Directory.as_raw_mode() | 0o555,
            links: 2,
            uid: 0,
            gid: 0,
            device_major: 0,
            device_minor: 0,
            block_size: 4096,
        }
    }

    /// The inode and its grant, which is still there.
    pub(crate) fn check(&self, id: InodeId) -> Result<(&Inode, &Granted)> {
        let inode = self.inodes.get(id)?;
        if inode.grant == NO_GRANT {
            return Err(Errno::ACCESS);
        }
        let granted = self.grants.get(inode.grant as usize).and_then(Option::as_ref);
        Ok((inode, granted.ok_or(Errno::STALE)?))
    }

    /// The same, for something that changes what it holds.
    pub(crate) fn check_writable(&self, id: InodeId) -> Result<()> {
        if self.is_hub(id)? {
            return Err(Errno::ROFS);
        }
        match self.check(id)?.1.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Errno::ROFS),
        }
    }

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
                let node = self.with_spares(|| beneath::open_node(at, name.as_c_str()));
                let node = node.map_err(|errno| match errno {
                    Errno::MFILE | Errno::NFILE | Errno::ACCESS => errno,
                    _ => Errno::STALE,
                })?;
                self.expect(id, identity::look_at(&node))?;
                self.nodes += 1;
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

    /// Does what takes a descriptor for a client's file, and again after others were closed if there
    /// are no more.
    pub(crate) fn with_descriptors<T>(&mut self, mut open: impl FnMut() -> Result<T>) -> Result<T> {
        self.save_spares()?;
        loop {
            match open() {
                Err(Errno::MFILE | Errno::NFILE) if self.close_some() => {}
                Err(Errno::NFILE) => return Err(Errno::MFILE),
                result => return result,
            }
        }
    }

    /// The same for a directory's own descriptor.
    fn with_spares<T>(&mut self, mut open: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match open() {
                Err(Errno::MFILE | Errno::NFILE)
                    if self.close_some() || self.spares.pop().is_some() => {}
                result => return result,
            }
        }
    }

    /// Takes as many descriptors as directories may need.
    fn save_spares(&mut self) -> Result<()> {
        while self.spares.len() < SPARES {
            let Some(granted) = self.grants.iter().flatten().next() else { return Ok(()) };
            match rustix::io::fcntl_dupfd_cloexec(&granted.directory, 0) {
                Ok(spare) => self.spares.push(spare),
                Err(Errno::MFILE | Errno::NFILE) if self.close_some() => {}
                Err(_) => return Err(Errno::MFILE),
            }
        }
        Ok(())
    }

    /// Closes descriptors that were not used for long. Says whether there were any.
    fn close_some(&mut self) -> bool {
        let mut closed = 0;
        // Twice around: the first time takes the marks of those that were used.
        for _ in 0..2 * self.inodes.slots() {
            if self.nodes == 0 || closed == EVICTED {
                break;
            }
            self.hand = (self.hand + 1) % self.inodes.slots();
            if self.inodes.evict(self.hand) {
                self.nodes -= 1;
                closed += 1;
            }
        }
        closed > 0
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
}
