//! A program of the guest that works on files, one operation at a time.

use std::collections::{BTreeMap, BTreeSet};

use devices::virtio::fs::protocol::{EntryOut, OpenOut, WriteOut};
use executor::sim::Numbers;
use zerocopy::FromBytes;

use super::files::{File, Files, OUTSIDE, Op};
use super::folder::Folder;
use super::words::{self, ROOM, ROOT, Words};

/// An error number, or bytes.
pub(super) type Answer = Result<Vec<u8>, i32>;

/// What files that were removed while they were open may say after a restart.
const STALE: i32 = 116;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const OUTSIDE_NAMES: [&str; 4] = ["..", ".", "a/b", "../secret"];
/// No file is longer.
const LONGEST: u64 = 1500;

/// See the module.
pub(super) struct Program {
    directory: String,
    pub(super) files: Files,
    pending: Option<Op>,
    /// What the guest knows since it began: nodes, with how often it has heard of each, and handles.
    node: Option<u64>,
    nodes: BTreeMap<u32, (u64, u64)>,
    handles: Vec<(u64, u32)>,
    open_directory: Option<u64>,
    /// Files without a name that were open when the back end was replaced.
    stale: BTreeSet<u32>,
}

impl Program {
    pub(super) fn new(number: usize) -> Self {
        Self {
            directory: format!("program-{number}"),
            files: Files::default(),
            pending: None,
            node: None,
            nodes: BTreeMap::new(),
            handles: Vec::new(),
            open_directory: None,
            stale: BTreeSet::new(),
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// The next operation in words.
    pub(super) fn next(&mut self, random: &mut Numbers) -> Option<Words> {
        let op = self.choose(random)?;
        let node = match &op {
            Op::MakeDirectory | Op::FindDirectory => ROOT,
            Op::Open { id }
            | Op::OpenLink { id }
            | Op::ReadLink { id }
            | Op::Truncate { id, .. } => self.nodes.get(id)?.0,
            Op::Read { id, .. }
            | Op::Write { id, .. }
            | Op::Sync { id, .. }
            | Op::Close { id, .. } => self.nodes.get(id).map_or(0, |known| known.0),
            _ => self.node?,
        };
        let words = words::of(&op, &self.directory, node);
        self.pending = Some(op);
        Some(words)
    }

    /// It could not be sent.
    pub(super) fn take_back(&mut self) {
        self.pending = None;
    }

    fn choose(&self, random: &mut Numbers) -> Option<Op> {
        if self.node.is_none() {
            return Some(if self.files.exists { Op::FindDirectory } else { Op::MakeDirectory });
        }
        let name = (*random.pick(&NAMES)).to_string();
        let named = self.files.names.get(&name).copied();
        let link = named.filter(|id| self.files.contents[id].is_link);
        let open = (!self.handles.is_empty()).then(|| *random.pick(&self.handles));
        let known = named.filter(|id| link.is_none() && self.nodes.contains_key(id));
        Some(match random.below(20) {
            0 | 1 => match named {
                None if random.once_in(6) => Op::Link { name },
                None => Op::Create { name },
                Some(_) => Op::Find { name },
            },
            2 | 3 if known.is_some() => Op::Open { id: known? },
            2 | 3 => Op::Find { name },
            4..=7 => {
                let (handle, id) = open?;
                let (byte, size) = (random.below(256) as u8, random.within(1..500) as u32);
                let from = random.below(LONGEST - u64::from(size));
                Op::Write { handle, id, from, byte, size }
            }
            8..=11 => {
                let (handle, id) = open?;
                let size = random.within(1..u64::from(ROOM)) as u32;
                Op::Read { handle, id, from: random.below(LONGEST), size }
            }
            12 => Op::Truncate { id: known?, size: random.below(LONGEST) },
            13 => {
                let (handle, id) = open?;
                Op::Sync { handle, id }
            }
            14 if self.handles.len() > 2 => {
                let (handle, id) = open?;
                Op::Close { handle, id }
            }
            15 => {
                named?;
                Op::Remove { name }
            }
            16 => {
                named?;
                let to = (*random.pick(&NAMES)).to_string();
                if to == name {
                    return None;
                }
                Op::Rename { from: name, to }
            }
            17 => match self.open_directory {
                None => Op::OpenDirectory,
                Some(handle) if random.once_in(2) => Op::List { handle },
                Some(handle) => Op::CloseDirectory { handle },
            },
            18 => Op::FindOutside { name: random.pick::<&str>(&OUTSIDE_NAMES) },
            _ => {
                let id = link.filter(|id| self.nodes.contains_key(id))?;
                if random.once_in(2) { Op::ReadLink { id } } else { Op::OpenLink { id } }
            }
        })
    }

    /// The answer has come.
    ///
    /// # Panics
    ///
    /// If it is not what has to be answered.
    pub(super) fn answered(&mut self, answer: Answer) {
        let op = self.pending.take().expect("something was asked");
        let stale = match &op {
            Op::Read { id, .. }
            | Op::Write { id, .. }
            | Op::Sync { id, .. }
            | Op::Close { id, .. } => self.stale.contains(id),
            _ => false,
        };
        if stale && answer == Err(STALE) {
            if let Op::Write { id, .. } = op {
                // It is gone, and nobody can tell what is in it.
                self.handles.retain(|(_, of)| *of != id);
            }
            return;
        }
        match (&op, &answer) {
            (Op::FindOutside { .. } | Op::OpenLink { .. }, Err(_)) => return,
            (Op::Find { name }, Err(_)) if !self.files.names.contains_key(name) => return,
            (_, Err(errno)) => panic!("{op:?} fails with {errno}"),
            (_, Ok(_)) => {}
        }
        self.check(&op, &answer.unwrap_or_default());
    }

    fn check(&mut self, op: &Op, bytes: &[u8]) {
        self.files.apply(op);
        match op {
            Op::MakeDirectory | Op::FindDirectory => self.node = Some(entry(bytes).node),
            Op::Create { name } | Op::Link { name } | Op::Find { name } => {
                let id = *self.files.names.get(name).expect("a name that is there");
                let entry = entry(bytes);
                let File { bytes: contents, .. } = &self.files.contents[&id];
                assert_eq!(entry.attr.size, contents.len() as u64, "the size of {name}");
                let known = self.nodes.entry(id).or_insert((entry.node, 0));
                assert_eq!(known.0, entry.node, "the node of {name}");
                known.1 += 1;
                if matches!(op, Op::Create { .. }) {
                    let open = &bytes[size_of::<EntryOut>()..];
                    self.handles.push((handle(open), id));
                }
            }
            Op::Open { id } => self.handles.push((handle(bytes), *id)),
            Op::OpenDirectory => self.open_directory = Some(handle(bytes)),
            Op::Read { id, from, size, .. } => {
                let contents = &self.files.contents[id].bytes;
                let from = (*from as usize).min(contents.len());
                let end = (from + *size as usize).min(contents.len());
                assert!(bytes == &contents[from..end], "a read of what was not written");
            }
            Op::Write { size, .. } => {
                let written = WriteOut::read_from_bytes(bytes).expect("a count").size;
                assert_eq!(written, *size, "a write that is short");
            }
            Op::ReadLink { .. } => assert_eq!(bytes, OUTSIDE.as_bytes(), "a link"),
            Op::Close { handle, .. } => self.handles.retain(|(known, _)| known != handle),
            Op::CloseDirectory { .. } => self.open_directory = None,
            Op::List { .. } => {
                let names: Vec<String> = self.files.names.keys().cloned().collect();
                assert_eq!(words::names(bytes), names, "the names of a directory");
            }
            Op::FindOutside { name } => panic!("{name} was found"),
            Op::OpenLink { .. } => panic!("a link was followed"),
            Op::Truncate { .. } | Op::Sync { .. } | Op::Remove { .. } | Op::Rename { .. } => {}
        }
    }

    /// A node that the guest needs no more, and how often it had heard of it.
    pub(super) fn forget(&mut self) -> Option<(u64, u64)> {
        let needed = |id: u32| {
            let is_open = self.handles.iter().any(|(_, of)| *of == id);
            is_open || self.files.has_name(id) || self.pending.is_some()
        };
        let id = self.nodes.keys().copied().find(|id| !needed(*id))?;
        self.files.contents.remove(&id);
        self.nodes.remove(&id)
    }

    /// The back end was replaced: what has no name cannot be found again.
    pub(super) fn succeeded(&mut self) {
        for (_, id) in &self.handles {
            // One that is about to lose its name may have lost it.
            if !self.files.has_name(*id) || self.pending.is_some() {
                self.stale.insert(*id);
            }
        }
    }

    /// The guest begins anew: what was asked for last was done or not.
    ///
    /// # Panics
    ///
    /// If the host sees something else.
    pub(super) fn reset(&mut self, folder: &Folder) {
        if let Some(op) = self.pending.take() {
            let mut after = self.files.clone();
            after.apply(&op);
            if self.seen(folder) == after.seen() {
                self.files = after;
            }
        }
        self.check_seen(folder);
        (self.node, self.open_directory) = (None, None);
        self.nodes.clear();
        self.handles.clear();
        self.stale.clear();
    }

    fn seen(&self, folder: &Folder) -> Option<BTreeMap<String, Vec<u8>>> {
        folder.files(&self.directory)
    }

    /// The host sees what the program has made.
    ///
    /// # Panics
    ///
    /// If not.
    pub(super) fn check_seen(&self, folder: &Folder) {
        let seen = self.seen(folder);
        assert!(seen == self.files.seen(), "the files of {} are not its own", self.directory);
    }
}

fn entry(bytes: &[u8]) -> EntryOut {
    EntryOut::read_from_prefix(bytes).expect("an entry").0
}

fn handle(bytes: &[u8]) -> u64 {
    OpenOut::read_from_bytes(bytes).expect("a handle").handle
}
