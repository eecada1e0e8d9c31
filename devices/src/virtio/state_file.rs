//! What a driver says once, kept outside the back end's process.
//!
//! When a back end dies, its successor goes on with the same queues and has to know what the driver has
//! set. It is written to a file in memory of the VMM whenever it changes, with a plain `pwrite`; that
//! is rare.
//!
//! The file may have been written by a hostile process: what is read has to be checked like what a
//! driver sends.

use std::io;
use std::marker::PhantomData;

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What a [`StateFile`] holds. Any bytes are a value of such a type.
pub trait State: FromBytes + IntoBytes + Immutable {
    /// What the file is called in `/proc`.
    const NAME: &'static str;
    /// What tells a value from a file that holds nothing.
    const MAGIC: u32;

    /// The [`State::MAGIC`] of this value.
    fn magic(&self) -> u32;
}

/// A file that holds a value, or nothing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct StateFile<T> {
    file: ipc::Fd,
    holds: PhantomData<T>,
}

impl<T: State> StateFile<T> {
    /// A file in memory that holds nothing.
    pub fn create() -> io::Result<Self> {
        let file = rustix::fs::memfd_create(T::NAME, MemfdFlags::CLOEXEC)?;
        Ok(Self { file: ipc::Fd::new(file), holds: PhantomData })
    }

    /// A second handle of the same file.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, holds: PhantomData })
    }

    pub(super) fn store(&self, state: &T) -> io::Result<()> {
        let written = rustix::io::pwrite(&self.file, state.as_bytes(), 0)?;
        if written == size_of::<T>() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// None if it holds nothing that makes sense.
    pub(super) fn load(&self) -> Option<T> {
        let mut state = T::new_zeroed();
        let read = rustix::io::pread(&self.file, state.as_mut_bytes(), 0).ok()?;
        (read == size_of::<T>() && state.magic() == T::MAGIC).then_some(state)
    }

    /// Forget what it holds.
    pub fn clear(&self) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.file, 0)?)
    }

    /// Write what a hostile process might.
    #[cfg(test)]
    pub(super) fn scribble(&self, bytes: &[u8]) {
        rustix::io::pwrite(&self.file, bytes, 0).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::KnownLayout;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    struct Pair {
        magic: u32,
        value: u32,
    }

    impl State for Pair {
        const NAME: &'static str = "pair";
        const MAGIC: u32 = 7;

        fn magic(&self) -> u32 {
            self.magic
        }
    }

    #[test]
    fn a_value_comes_back_as_it_was_and_garbage_does_not() {
        let file = StateFile::create().unwrap();
        assert_eq!(file.load(), None);
        let pair = Pair { magic: 7, value: 9 };
        file.store(&pair).unwrap();
        let same = file.try_clone().unwrap();
        assert_eq!(same.load(), Some(pair));
        file.scribble(&[8]);
        assert_eq!(same.load(), None);
        file.clear().unwrap();
        file.scribble(&[7, 0, 0, 0, 1]);
        assert_eq!(same.load(), None, "too short");
    }
}
