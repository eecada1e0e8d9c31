//! Fields of messages.

use std::fmt;

use super::MOST_NAMES;

/// Bytes that are left of a message.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Something that a message is made of.
pub(super) trait Field<'a>: Sized {
    fn read(reader: &mut Reader<'a>) -> Option<Self>;
    fn write(&self, out: &mut Vec<u8>);
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl<'a> Field<'a> for $number {
            fn read(reader: &mut Reader<'a>) -> Option<Self> {
                let bytes = reader.take(size_of::<Self>())?;
                Some(Self::from_le_bytes(bytes.try_into().ok()?))
            }
            fn write(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64);

/// A text: any bytes, at most 65,535.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<'a>(pub &'a [u8]);

impl<'a> Field<'a> for Text<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let length = u16::read(reader)?;
        reader.take(length.into()).map(Self)
    }
    fn write(&self, out: &mut Vec<u8>) {
        let bytes = &self.0[..self.0.len().min(u16::MAX.into())];
        (bytes.len() as u16).write(out);
        out.extend(bytes);
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.0))
    }
}

/// The names of a walk, at most 16.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Names<'a> {
    names: [Text<'a>; MOST_NAMES],
    count: usize,
}

impl<'a> Names<'a> {
    /// None if there are too many.
    pub fn new(list: &[&'a [u8]]) -> Option<Self> {
        let mut names = [Text(&[]); MOST_NAMES];
        for (index, name) in list.iter().enumerate() {
            *names.get_mut(index)? = Text(name);
        }
        Some(Self { names, count: list.len() })
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        self.names[..self.count].iter().map(|name| name.0)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> Field<'a> for Names<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let count = u16::read(reader)?.into();
        let mut names = [Text(&[]); MOST_NAMES];
        for name in names.get_mut(..count)? {
            *name = Text::read(reader)?;
        }
        Some(Self { names, count })
    }
    fn write(&self, out: &mut Vec<u8>) {
        (self.count as u16).write(out);
        self.names[..self.count].iter().for_each(|name| name.write(out));
    }
}

impl fmt::Debug for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.names[..self.count]).finish()
    }
}

/// What kind of file a server says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QidKind(pub u8);

impl QidKind {
    /// A directory.
    pub const DIRECTORY: Self = Self(0x80);
    /// A symbolic link.
    pub const LINK: Self = Self(0x02);
    /// Anything else.
    pub const FILE: Self = Self(0);
}

/// A server's name for a file: the same for the same file, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qid {
    /// What it is.
    pub kind: QidKind,
    /// Another whenever the file has changed.
    pub version: u32,
    /// Which file.
    pub path: u64,
}

impl<'a> Field<'a> for Qid {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let kind = QidKind(u8::read(reader)?);
        Some(Self { kind, version: u32::read(reader)?, path: u64::read(reader)? })
    }
    fn write(&self, out: &mut Vec<u8>) {
        self.kind.0.write(out);
        self.version.write(out);
        self.path.write(out);
    }
}

/// What the names of a walk led to, at most 16.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Qids {
    qids: [Qid; MOST_NAMES],
    count: usize,
}

impl Qids {
    /// None yet.
    pub const fn new() -> Self {
        let none = Qid { kind: QidKind::FILE, version: 0, path: 0 };
        Self { qids: [none; MOST_NAMES], count: 0 }
    }

    /// One more; there is room for as many as a walk has names.
    pub fn push(&mut self, qid: Qid) {
        if let Some(place) = self.qids.get_mut(self.count) {
            *place = qid;
            self.count += 1;
        }
    }

    /// All of them.
    pub fn as_slice(&self) -> &[Qid] {
        &self.qids[..self.count]
    }
}

impl Default for Qids {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Field<'a> for Qids {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let count: usize = u16::read(reader)?.into();
        let mut qids = Self::new();
        for qid in qids.qids.get_mut(..count)? {
            *qid = Qid::read(reader)?;
        }
        Some(Self { count, ..qids })
    }
    fn write(&self, out: &mut Vec<u8>) {
        (self.count as u16).write(out);
        self.as_slice().iter().for_each(|qid| qid.write(out));
    }
}

impl fmt::Debug for Qids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}
