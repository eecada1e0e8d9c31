//! What Linux' driver asks for a system call of a program.

use devices::virtio::fs::protocol::{
    CreateIn, Dirent, EntryOut, ForgetIn, GetattrIn, InitFlags, InitIn, InitInMore, InitOut, MAJOR,
    MINOR, Opcode, OpenIn, OpenOut, ReleaseIn, TransferIn, WriteOut,
};
use zerocopy::{FromBytes, IntoBytes};

use super::client::{Ask, Client, MOST_DATA};
use crate::LoadError;

/// `FUSE_FLUSH`, which our server does not know and others do.
const FLUSH: u32 = 25;
/// What Linux gives a directory's entries: a page.
const ENTRIES: u32 = 4096;

/// Whether files are flushed when they are closed: until the server says that there is no such request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Flush {
    #[default]
    Asked,
    Unknown,
}

/// An entry of a directory.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) next: u64,
    /// None if it was not looked up.
    pub(super) entry: Option<EntryOut>,
}

/// Whether entries are looked up as they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entries {
    Names,
    LookedUp,
}

impl Client<'_> {
    /// Begins a session with what Linux 6.1 can; says how much a write may have.
    pub(super) async fn init(&self) -> Result<u32, LoadError> {
        let wanted = InitFlags::ASYNC_READ
            | InitFlags::ATOMIC_O_TRUNC
            | InitFlags::BIG_WRITES
            | InitFlags::DONT_MASK
            | InitFlags::AUTO_INVAL_DATA
            | InitFlags::DO_READDIRPLUS
            | InitFlags::READDIRPLUS_AUTO
            | InitFlags::ASYNC_DIO
            | InitFlags::PARALLEL_DIROPS
            | InitFlags::MAX_PAGES
            | InitFlags::CACHE_SYMLINKS
            | InitFlags::HANDLE_KILLPRIV_V2
            | InitFlags::INIT_EXT;
        let init = InitIn {
            major: MAJOR,
            minor: MINOR,
            max_readahead: 128 << 10,
            flags: wanted.bits() as u32,
        };
        let more = InitInMore { flags2: (wanted.bits() >> 32) as u32, unused: [0; 11] };
        let arguments = [init.as_bytes(), more.as_bytes()].concat();
        let ask = Ask {
            opcode: Opcode::Init as u32,
            arguments: &arguments,
            body: size_of::<InitOut>() as u32,
            ..Ask::default()
        };
        let answer = self.ask(&ask).await?.done()?.body::<InitOut>()?;
        if answer.major != MAJOR {
            return Err(LoadError::Wrong(format!("version {} of FUSE", answer.major)));
        }
        Ok(answer.max_write.clamp(4096, MOST_DATA))
    }

    /// Looks for a name, which may not be there.
    pub(super) async fn look_up(
        &self,
        node: u64,
        name: &str,
    ) -> Result<Option<EntryOut>, LoadError> {
        let opcode = Opcode::Lookup as u32;
        let body = size_of::<EntryOut>() as u32;
        let answer = self.ask(&Ask { opcode, node, name, body, ..Ask::default() }).await?;
        if answer.error == rustix::io::Errno::NOENT.raw_os_error() {
            return Ok(None);
        }
        let entry = answer.done()?.body::<EntryOut>()?;
        // A name that is not there may be told in this way, too.
        Ok((entry.node != 0).then_some(entry))
    }

    /// The node of a name that is there.
    pub(super) async fn find(&self, node: u64, name: &str) -> Result<EntryOut, LoadError> {
        let found = self.look_up(node, name).await?;
        found.ok_or_else(|| LoadError::Wrong(format!("{name} is not there")))
    }

    pub(super) async fn getattr(&self, node: u64) -> Result<(), LoadError> {
        let arguments = GetattrIn { flags: 0, padding: 0, handle: 0 };
        let opcode = Opcode::Getattr as u32;
        let arguments = arguments.as_bytes();
        self.ask(&Ask { opcode, node, arguments, body: 104, ..Ask::default() }).await?.done()?;
        Ok(())
    }

    /// Opens a file or a directory.
    pub(super) async fn open(
        &self,
        opcode: Opcode,
        node: u64,
        flags: u32,
    ) -> Result<u64, LoadError> {
        let arguments = OpenIn { flags, open_flags: 0 };
        let arguments = arguments.as_bytes();
        let body = size_of::<OpenOut>() as u32;
        let ask = Ask { opcode: opcode as u32, node, arguments, body, ..Ask::default() };
        Ok(self.ask(&ask).await?.done()?.body::<OpenOut>()?.handle)
    }

    /// Makes a file and opens it; gives its node and the handle.
    pub(super) async fn create(&self, node: u64, name: &str) -> Result<(u64, u64), LoadError> {
        let flags = (libc::O_WRONLY | libc::O_CREAT) as u32;
        let arguments = CreateIn { flags, mode: 0o100_644, umask: 0o022, open_flags: 0 };
        let arguments = arguments.as_bytes();
        let body = (size_of::<EntryOut>() + size_of::<OpenOut>()) as u32;
        let opcode = Opcode::Create as u32;
        let ask = Ask { opcode, node, arguments, name, body, ..Ask::default() };
        let answer = self.ask(&ask).await?.done()?.bytes();
        let wrong = || LoadError::Wrong("the answer to a creation is short".into());
        let (entry, rest) = EntryOut::read_from_prefix(&answer).map_err(|_| wrong())?;
        let (open, _) = OpenOut::read_from_prefix(rest).map_err(|_| wrong())?;
        Ok((entry.node, open.handle))
    }

    /// Reads pages of a file, which begin with their numbers from `first` on.
    pub(super) async fn read(
        &self,
        (node, handle): (u64, u64),
        offset: u64,
        size: u32,
        first: u64,
        expected: u32,
    ) -> Result<(), LoadError> {
        let arguments = transfer(handle, offset, size);
        let arguments = arguments.as_bytes();
        let opcode = Opcode::Read as u32;
        let ask = Ask { opcode, node, arguments, data: size, ..Ask::default() };
        self.ask(&ask).await?.done()?.check_pages(first, expected)
    }

    /// Writes pages of a file.
    pub(super) async fn write(
        &self,
        (node, handle): (u64, u64),
        offset: u64,
        size: u32,
        first: u64,
    ) -> Result<(), LoadError> {
        let arguments = transfer(handle, offset, size);
        let arguments = arguments.as_bytes();
        let body = size_of::<WriteOut>() as u32;
        let (opcode, sent) = (Opcode::Write as u32, Some((first, size)));
        let ask = Ask { opcode, node, arguments, sent, body, ..Ask::default() };
        match self.ask(&ask).await?.done()?.body::<WriteOut>()?.size {
            written if written == size => Ok(()),
            written => Err(LoadError::Wrong(format!("{written} bytes of {size} were written"))),
        }
    }

    /// Closes a file: it is flushed first, and what then releases it waits for nothing.
    pub(super) async fn close(&self, node: u64, handle: u64) -> Result<(), LoadError> {
        if self.flush.get() == Flush::Asked {
            // A handle, and the owner of locks.
            let arguments = [handle, 0, 0];
            let ask =
                Ask { opcode: FLUSH, node, arguments: arguments.as_bytes(), ..Ask::default() };
            let answer = self.ask(&ask).await?;
            if answer.error == rustix::io::Errno::NOSYS.raw_os_error() {
                self.flush.set(Flush::Unknown);
            } else {
                answer.done()?;
            }
        }
        self.release(Opcode::Release, node, handle).await
    }

    pub(super) async fn release(
        &self,
        opcode: Opcode,
        node: u64,
        handle: u64,
    ) -> Result<(), LoadError> {
        let release = ReleaseIn { handle, flags: 0, release_flags: 0, lock_owner: 0 };
        let (opcode, arguments) = (opcode as u32, release.as_bytes());
        self.send(&Ask { opcode, node, arguments, ..Ask::default() }).await
    }

    /// Some entries of a directory from a place on; none at its end.
    pub(super) async fn entries(
        &self,
        (node, handle): (u64, u64),
        offset: u64,
        how: Entries,
    ) -> Result<Vec<Found>, LoadError> {
        let arguments = transfer(handle, offset, ENTRIES);
        let arguments = arguments.as_bytes();
        let opcode = match how {
            Entries::Names => Opcode::Readdir,
            Entries::LookedUp => Opcode::Readdirplus,
        };
        let ask = Ask { opcode: opcode as u32, node, arguments, body: ENTRIES, ..Ask::default() };
        let bytes = self.ask(&ask).await?.done()?.bytes();
        parse(&bytes, how).ok_or_else(|| LoadError::Wrong("entries that are none".into()))
    }

    pub(super) async fn unlink(&self, node: u64, name: &str) -> Result<(), LoadError> {
        let opcode = Opcode::Unlink as u32;
        self.ask(&Ask { opcode, node, name, ..Ask::default() }).await?.done()?;
        Ok(())
    }

    /// The node is forgotten, once. For the queue of urgent requests.
    pub(super) fn forget(&self, node: u64) -> Result<(), LoadError> {
        let arguments = ForgetIn { lookups: 1 };
        let (opcode, arguments) = (Opcode::Forget as u32, arguments.as_bytes());
        self.tell(&Ask { opcode, node, arguments, ..Ask::default() })
    }
}

fn transfer(handle: u64, offset: u64, size: u32) -> TransferIn {
    TransferIn { handle, offset, size, transfer_flags: 0, lock_owner: 0, flags: 0, padding: 0 }
}

fn parse(mut bytes: &[u8], how: Entries) -> Option<Vec<Found>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let mut entry = None;
        if how == Entries::LookedUp {
            let (looked_up, rest) = EntryOut::read_from_prefix(bytes).ok()?;
            entry = (looked_up.node != 0).then_some(looked_up);
            bytes = rest;
        }
        let (head, _) = Dirent::read_from_prefix(bytes).ok()?;
        let length = size_of::<Dirent>() + head.name_length as usize;
        let name = bytes.get(size_of::<Dirent>()..length)?;
        let name = String::from_utf8_lossy(name).into_owned();
        found.push(Found { name, next: head.next, entry });
        bytes = bytes.get(length.next_multiple_of(8)..).unwrap_or_default();
    }
    Some(found)
}
