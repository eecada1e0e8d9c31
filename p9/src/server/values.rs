//! Extended attributes: fids that a value is read from, and fids that one is written to.
//!
//! ```text
//!   Txattrwalk ──► a new fid with the value ──► Tread ──► Tclunk
//!   Txattrcreate ──► the fid takes a value ──► Twrite ──► Tclunk, which sets it
//! ```

use std::collections::HashMap;
use std::ffi::{CStr, CString};

use fileserver::{Errno, InodeId, MAX_VALUE, Replace, Result};

use super::fids::{Fid, Place, State};
use super::session::{Acl, Session};
use crate::wire::Reply;

/// The most of these at a time: a client's process has one for the length of a call.
const MOST_VALUES: usize = 64;
/// What access control lists are kept in.
const LISTS: [&CStr; 2] = [c"system.posix_acl_access", c"system.posix_acl_default"];

/// The value of an extended attribute on its way.
#[derive(Debug)]
enum Value {
    Read(Vec<u8>),
    Written { key: CString, size: usize, flags: u32, bytes: Vec<u8> },
}

/// Those of all fids.
#[derive(Debug, Default)]
pub(super) struct Values(HashMap<u32, Value>);

impl Values {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn check_room(&self) -> Result<()> {
        if self.0.len() < MOST_VALUES { Ok(()) } else { Err(Errno::MFILE) }
    }

    /// A part of the value that is read from a fid.
    pub(super) fn part(&self, number: u32, offset: u64, count: usize) -> Result<&[u8]> {
        let Some(Value::Read(bytes)) = self.0.get(&number) else { return Err(Errno::BADF) };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[from..bytes.len().min(from.saturating_add(count))])
    }

    /// Whether so many bytes may be written to a fid there.
    pub(super) fn check_part(&self, number: u32, offset: u64, count: u32) -> Result<()> {
        let Some(Value::Written { size, bytes, .. }) = self.0.get(&number) else {
            return Err(Errno::BADF);
        };
        // One part after the other, as Linux writes them.
        let end = bytes.len() as u64 + u64::from(count);
        if offset != bytes.len() as u64 {
            return Err(Errno::INVAL);
        }
        if end > *size as u64 { Err(Errno::NOSPC) } else { Ok(()) }
    }

    /// Takes a part that was checked.
    pub(super) fn put(&mut self, number: u32, part: &[u8]) -> Result<()> {
        let Some(Value::Written { bytes, .. }) = self.0.get_mut(&number) else {
            return Err(Errno::BADF);
        };
        bytes.extend_from_slice(part);
        Ok(())
    }
}

impl Session {
    /// Makes a fid that a value, or the list of all keys, can be read from.
    pub(super) fn xattr_walk(&mut self, number: u32, new: u32, key: &[u8]) -> Result<()> {
        let fid = self.fids.get(number)?;
        if self.fids.is_taken(new) {
            return Err(Errno::BADF);
        }
        self.fids.check_room()?;
        self.values.check_room()?;
        let mut bytes = vec![0; MAX_VALUE];
        let length = if key.is_empty() {
            self.tree.attribute_names(fid.inode, &mut bytes)?
        } else {
            let key = self.key(key)?;
            self.tree.attribute(fid.inode, &key, &mut bytes)?
        };
        bytes.truncate(length);
        bytes.shrink_to_fit();
        self.tree.hold(fid.inode)?;
        let fid = Fid { state: State::Value, place: Place::UNKNOWN, ..fid };
        self.fids.set(self.tree.ledger(), new, fid)?;
        self.values.0.insert(new, Value::Read(bytes));
        self.reply(&Reply::Xattrwalk { size: length as u64 });
        Ok(())
    }

    /// Makes of a fid one that a value can be written to.
    pub(super) fn xattr_create(
        &mut self,
        number: u32,
        key: &[u8],
        size: u64,
        flags: u32,
    ) -> Result<()> {
        let fid = self.fids.get(number)?;
        if matches!(fid.state, State::Open(_) | State::Value) {
            return Err(Errno::BADF);
        }
        let key = self.key(key)?;
        Replace::from_flags(flags)?;
        let size = usize::try_from(size).ok().filter(|size| *size <= MAX_VALUE);
        let size = size.ok_or(Errno::TOOBIG)?;
        self.values.check_room()?;
        let value = Value::Written { key, size, flags, bytes: Vec::new() };
        let fid = Fid { state: State::Value, ..fid };
        self.fids.set(self.tree.ledger(), number, fid)?;
        self.values.0.insert(number, value);
        Ok(())
    }

    /// The end of such a fid: a value that was written is set.
    pub(super) fn end_value(&mut self, number: u32, inode: InodeId) -> Result<()> {
        match self.values.0.remove(&number) {
            Some(Value::Read(_)) => Ok(()),
            Some(Value::Written { key, size, flags, bytes }) => {
                if bytes.len() != size {
                    return Err(Errno::INVAL);
                }
                let replace = Replace::from_flags(flags)?;
                // There is no message for removing; this is how Linux says it.
                let removed = replace == Replace::Replace || LISTS.contains(&key.as_c_str());
                if size == 0 && removed {
                    return self.tree.remove_attribute(inode, &key);
                }
                self.tree.set_attribute(inode, &key, &bytes, replace)
            }
            None => Err(Errno::STALE),
        }
    }

    fn key(&self, key: &[u8]) -> Result<CString> {
        // `XATTR_NAME_MAX`
        if key.is_empty() || key.len() > 255 {
            return Err(Errno::RANGE);
        }
        let key = CString::new(key).map_err(|_| Errno::INVAL)?;
        // Their owners are numbers of the host.
        if self.options.acl == Acl::Off && LISTS.contains(&key.as_c_str()) {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(key)
    }
}
