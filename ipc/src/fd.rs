//! File descriptors inside messages.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{self, Outgoing, Refusal};
use crate::link::handle::Handle;

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
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        codec::depart(serializer, || match self.0.try_clone() {
            Ok(duplicate) => Ok(Outgoing::Fd(duplicate)),
            Err(error) => {
                log::error!("cannot duplicate a descriptor to send it: {error}");
                Err(Refusal::Descriptor)
            }
        })
    }
}

impl<'de> Deserialize<'de> for Fd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        codec::arrive(deserializer, |_, handle, fd| match (handle, fd) {
            (Handle::Fd, Some(fd)) => Ok(Self(fd)),
            _ => Err("a descriptor was expected and another handle came"),
        })
    }
}
