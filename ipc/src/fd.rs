//! File descriptors inside messages.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An owned file descriptor that can be a field of a message.
///
/// Inside one process it simply moves. Across a fork it travels beside the frame as ancillary data
/// and the receiver gets a descriptor of its own, close-on-exec.
#[derive(Debug)]
pub struct Fd(OwnedFd);

impl Fd {
    /// Wraps a descriptor.
    pub fn new(fd: impl Into<OwnedFd>) -> Self {
        Self(fd.into())
    }

    /// The descriptor itself.
    pub fn into_owned(self) -> OwnedFd {
        self.0
    }

    /// A second descriptor for the same open file.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl From<OwnedFd> for Fd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Fd> for OwnedFd {
    fn from(fd: Fd) -> Self {
        fd.0
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Serialize for Fd {
    fn serialize<S: Serializer>(&self, _serializer: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(
            "a descriptor crosses only inside a message on a link",
        ))
    }
}

impl<'de> Deserialize<'de> for Fd {
    fn deserialize<D: Deserializer<'de>>(_deserializer: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(
            "a descriptor crosses only inside a message on a link",
        ))
    }
}
