//! The tree: what is shared, and what a client knows of it. [`crate::reach`] is the way to it.

use std::cell::Cell;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::Result;
use crate::descriptors::Descriptors;
use crate::grants::{Access, Grant, GrantId, Granted};
use crate::handles::Handles;
use crate::identity::{self, Attributes, Identity, Look, Time};
use crate::ids::Ids;
use crate::inodes::{Budget, Found, Inode, InodeId, Inodes};
use crate::ledger::Ledger;
use crate::name::Name;

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
    pub(crate) grants: Vec<Option<Granted>>,
    pub(crate) descriptors: Descriptors,
    pub(crate) umask: Cell<Option<u32>>,
    /// The user and the group whose files are what this process makes.
    pub(crate) own: (u32, u32),
    /// Kept for its capacity: entries of a directory as the kernel gives them.
    pub(crate) entries: Vec<std::mem::MaybeUninit<u8>>,
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
            children: 0,
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
        let (grants, descriptors, entries) = (Vec::new(), Descriptors::new(), Vec::new());
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { ids, ledger, inodes, handles, grants, descriptors, umask, own, entries }
    }

    /// Shares a directory under a name of the root.
    ///
    /// `EEXIST` if the name is another one's. The root of [`Tree::of_directory`] takes no names: `EINVAL`.
    pub fn grant(&mut self, name: &Name, grant: Grant) -> Result<GrantId> {
        if self.inodes.get(InodeId::ROOT)?.grant != NO_GRANT {
            return Err(Errno::INVAL);
        }
        let new = Granted::new(grant, Some(name))?;
        if let Some(id) = self.grant_named(name) {
            let same = self.grants[id.0 as usize].as_ref().is_some_and(|old| old.is_same(&new));
            return if same { Ok(id) } else { Err(Errno::EXIST) };
        }
        self.grants.push(Some(new));
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

    /// How many grants there ever were.
    pub fn grants_ever(&self) -> usize {
        self.grants.len()
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
        self.descriptors.forget_nodes();
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

    /// An inode that the client knows counts as looked up once more.
    pub fn hold(&mut self, inode: InodeId) -> Result<()> {
        self.inodes.hold(&self.ledger, inode)
    }

    /// Looks for what an inode lies in; the root lies in itself. Counts as looked up once more.
    pub fn look_up_parent(&mut self, inode: InodeId) -> Result<Entry> {
        let parent = match self.inodes.get(inode)?.kind {
            FileType::Directory => self.inodes.get(inode)?.parent,
            _ => return Err(Errno::NOTDIR),
        };
        let attributes = self.attributes(parent, None)?;
        self.hold(parent)?;
        Ok(Entry { inode: parent, attributes })
    }

    /// What kind of file an inode is.
    pub fn kind(&self, inode: InodeId) -> Result<FileType> {
        Ok(self.inodes.get(inode)?.kind)
    }

    /// Counts its inodes together with those of other trees, which have as many in all as one may
    /// have alone.
    pub fn share_budget(&mut self, budget: &Budget) {
        self.inodes.share_budget(budget.clone());
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
}
