//! The files of one program of the guest, in a directory that nobody else changes.

use std::collections::BTreeMap;

/// What the program wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    /// Its directory, made or found.
    MakeDirectory,
    FindDirectory,
    Create {
        name: String,
    },
    Find {
        name: String,
    },
    /// A name that is none, or leads outside.
    FindOutside {
        name: &'static str,
    },
    Link {
        name: String,
    },
    OpenLink {
        id: u32,
    },
    ReadLink {
        id: u32,
    },
    Open {
        id: u32,
    },
    Read {
        handle: u64,
        id: u32,
        from: u64,
        size: u32,
    },
    Write {
        handle: u64,
        id: u32,
        from: u64,
        byte: u8,
        size: u32,
    },
    Truncate {
        id: u32,
        size: u64,
    },
    Sync {
        handle: u64,
        id: u32,
    },
    Close {
        handle: u64,
        id: u32,
    },
    Remove {
        name: String,
    },
    Rename {
        from: String,
        to: String,
    },
    OpenDirectory,
    List {
        handle: u64,
    },
    CloseDirectory {
        handle: u64,
    },
}

/// Where links lead.
pub(super) const OUTSIDE: &str = "../../secret";

/// A file, or a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    pub(super) is_link: bool,
}

/// What there is, whatever the guest knows of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Files {
    /// The program's directory was made.
    pub(super) exists: bool,
    pub(super) names: BTreeMap<String, u32>,
    /// Also those without a name that are open.
    pub(super) contents: BTreeMap<u32, File>,
    next: u32,
}

impl Files {
    pub(super) fn add(&mut self, name: &str, file: File) -> u32 {
        self.next += 1;
        self.names.insert(name.into(), self.next);
        self.contents.insert(self.next, file);
        self.next
    }

    pub(super) fn has_name(&self, id: u32) -> bool {
        self.names.values().any(|named| *named == id)
    }

    /// What an operation that goes well makes of it.
    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::MakeDirectory | Op::FindDirectory => self.exists = true,
            Op::Create { name } => {
                self.add(name, File { bytes: Vec::new(), is_link: false });
            }
            Op::Link { name } => {
                self.add(name, File { bytes: OUTSIDE.into(), is_link: true });
            }
            Op::Write { id, from, byte, size, .. } => {
                if let Some(file) = self.contents.get_mut(id) {
                    let (from, end) = (*from as usize, *from as usize + *size as usize);
                    file.bytes.resize(file.bytes.len().max(end), 0);
                    file.bytes[from..end].fill(*byte);
                }
            }
            Op::Truncate { id, size } => {
                if let Some(file) = self.contents.get_mut(id) {
                    file.bytes.resize(*size as usize, 0);
                }
            }
            Op::Remove { name } => _ = self.names.remove(name),
            Op::Rename { from, to } => {
                if let Some(id) = self.names.remove(from) {
                    self.names.insert(to.clone(), id);
                }
            }
            _ => {}
        }
    }

    /// By name, as the host sees them. None without a directory.
    pub(super) fn seen(&self) -> Option<BTreeMap<String, Vec<u8>>> {
        let file = |(name, id): (&String, &u32)| (name.clone(), self.contents[id].bytes.clone());
        self.exists.then(|| self.names.iter().map(file).collect())
    }
}
