//! Extended attributes, which also carry access control lists.
//!
//! The calls that take a descriptor want a file that is open, and not all can be opened. So a
//! directory becomes the thread's working directory, and the name in it is not followed.

use std::ffi::CStr;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::Result;
use crate::inodes::InodeId;
use crate::reach::Spot;
use crate::tree::Tree;

/// The longest value, and the longest list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
pub const MAX_VALUE: usize = 64 << 10;

/// What becomes of a value that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// It may be there or not.
    Either,
    /// It must not be there.
    Create,
    /// It has to be there.
    Replace,
}

impl Replace {
    /// From the flags of `setxattr`.
    pub fn from_flags(flags: u32) -> Result<Self> {
        match flags as i32 {
            0 => Ok(Self::Either),
            libc::XATTR_CREATE => Ok(Self::Create),
            libc::XATTR_REPLACE => Ok(Self::Replace),
            _ => Err(Errno::INVAL),
        }
    }

    fn flags(self) -> XattrFlags {
        match self {
            Self::Either => XattrFlags::empty(),
            Self::Create => XattrFlags::CREATE,
            Self::Replace => XattrFlags::REPLACE,
        }
    }
}

impl Tree {
    /// The value of an attribute, as far as it has room in `value`; `ERANGE` if it has not. With an
    /// empty `value` only its length.
    pub fn attribute(&mut self, inode: InodeId, key: &CStr, value: &mut [u8]) -> Result<usize> {
        match self.place(inode)? {
            Place::Here(name) if value.is_empty() => {
                rustix::fs::lgetxattr_query(name.as_c_str(), key)
            }
            Place::Open(file) if value.is_empty() => rustix::fs::fgetxattr_query(file, key),
            Place::Here(name) => rustix::fs::lgetxattr(name.as_c_str(), key, value),
            Place::Open(file) => rustix::fs::fgetxattr(file, key, value),
        }
    }

    /// The names of all attributes, each with a zero behind it. With an empty `names` only how many
    /// bytes these are.
    pub fn attribute_names(&mut self, inode: InodeId, names: &mut [u8]) -> Result<usize> {
        match self.place(inode)? {
            Place::Here(name) if names.is_empty() => rustix::fs::llistxattr_query(name.as_c_str()),
            Place::Open(file) if names.is_empty() => rustix::fs::flistxattr_query(file),
            Place::Here(name) => rustix::fs::llistxattr(name.as_c_str(), names),
            Place::Open(file) => rustix::fs::flistxattr(file, names),
        }
    }

    /// Sets an attribute.
    pub fn set_attribute(
        &mut self,
        inode: InodeId,
        key: &CStr,
        value: &[u8],
        replace: Replace,
    ) -> Result<()> {
        self.check_writable(inode)?;
        match self.place(inode)? {
            Place::Here(name) => {
                rustix::fs::lsetxattr(name.as_c_str(), key, value, replace.flags())
            }
            Place::Open(file) => rustix::fs::fsetxattr(file, key, value, replace.flags()),
        }
    }

    /// Removes an attribute.
    pub fn remove_attribute(&mut self, inode: InodeId, key: &CStr) -> Result<()> {
        self.check_writable(inode)?;
        match self.place(inode)? {
            Place::Here(name) => rustix::fs::lremovexattr(name.as_c_str(), key),
            Place::Open(file) => rustix::fs::fremovexattr(file, key),
        }
    }

    /// Makes the inode reachable by a name without a slash.
    fn place(&mut self, inode: InodeId) -> Result<Place> {
        if self.is_hub(inode)? {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(match self.spot(inode)?.0 {
            Spot::Directory(node) => {
                rustix::process::fchdir(node)?;
                Place::Here(Here::Itself)
            }
            Spot::Named(at, name) => {
                rustix::process::fchdir(at)?;
                Place::Here(Here::Named(name))
            }
            Spot::Open(file) => Place::Open(file),
        })
    }
}

#[expect(clippy::large_enum_variant, reason = "lives on the stack, for one request")]
enum Place {
    /// In the working directory.
    Here(Here),
    Open(executor::Fd),
}

#[expect(clippy::large_enum_variant, reason = "lives on the stack, for one request")]
enum Here {
    Itself,
    Named(crate::Name),
}

impl Here {
    fn as_c_str(&self) -> &CStr {
        match self {
            Self::Itself => c".",
            Self::Named(name) => name.as_c_str(),
        }
    }
}
