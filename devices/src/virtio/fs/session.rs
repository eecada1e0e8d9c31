//! What a driver and the tree have agreed on, and what becomes of each request.

use std::time::Duration;

use executor::Fd;
use fileserver::{
    Changes, Errno, Exchange, FileType, HandleId, InodeId, OpenMode, Past, Replace, Result, SetIds,
    Size, Special, Stamp, Time, Tree, Whence,
};
use rustix::fs::FallocateFlags;
use zerocopy::{FromBytes, IntoBytes};

use super::answer::{self, Entries, Validity};
use super::options::{Cache, FsOptions};
use super::protocol::{
    FSYNC_DATA, ForgetOne, GETATTR_HANDLE, GetattrIn, GetxattrOut, InHeader, InitFlags, InitIn,
    InitOut, LEAST_MINOR, LseekOut, MAJOR, MINOR, OPEN_CACHE_DIR, OPEN_DIRECT_IO, OPEN_KEEP_CACHE,
    OPEN_KILL, OpenIn, OpenOut, SET_ATIME, SET_ATIME_NOW, SET_GID, SET_HANDLE, SET_KILL, SET_MODE,
    SET_MTIME, SET_MTIME_NOW, SET_SIZE, SET_UID, SetattrIn, TransferIn, WRITE_KILL, WriteOut,
};
use super::request::Request;
use crate::virtio::queue::Side;

/// The most that one request transfers: 256 pages, the limit of Linux' drivers.
pub(super) const MOST_TRANSFERRED: u32 = 1 << 20;
/// Requests that nobody waits for, of which a driver may have so many under way.
const BACKGROUND: u16 = 128;

/// Words of the ledger: whether there is a session, and what was agreed on.
const READY: usize = 0;
const AGREED: usize = 1;

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is done; its answer is in [`Session::reply`].
    Done(Result<()>),
    /// Data is to be moved between a file and the request's memory; `durable` if each write waits for the disk.
    Transfer { file: Fd, offset: u64, size: u32, side: Side, durable: bool },
    /// A file is to be made durable.
    Sync { file: Fd, how: Durability },
    /// A range of a file is to be allocated or freed.
    Allocate { file: Fd, mode: FallocateFlags, offset: u64, length: u64 },
}

/// How much of a file becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    Data,
    All,
}

/// The tree of one driver.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) tree: Tree,
    pub(super) options: FsOptions,
    /// The bytes of an answer behind its header.
    pub(super) reply: Vec<u8>,
}

impl Session {
    pub(super) fn new(tree: Tree, options: FsOptions) -> Self {
        Self { tree, options, reply: Vec::new() }
    }

    /// The driver is gone, or begins anew.
    pub(super) fn end(&mut self) {
        self.tree.forget_all();
        self.tree.ledger().clear_journals();
        self.tree.ledger().set_protocol_word(READY, 0);
    }

    fn is_ready(&self) -> bool {
        self.tree.ledger().protocol_word(READY) != 0
    }

    fn agreed(&self, flag: InitFlags) -> bool {
        let agreed = InitFlags::from_bits_retain(self.tree.ledger().protocol_word(AGREED));
        agreed.contains(flag)
    }

    fn validity(&self) -> Validity {
        Validity(match self.options.cache {
            Cache::Never => Duration::ZERO,
            Cache::Auto => Duration::from_secs(1),
            Cache::Always => Duration::from_hours(24),
        })
    }

    /// Carries a request out as far as that needs no data. `past` is what a predecessor did for it;
    /// `room` is how long an answer may be.
    pub(super) fn execute(
        &mut self,
        header: &InHeader,
        request: &Request<'_>,
        past: &Past,
        room: usize,
    ) -> Outcome {
        self.reply.clear();
        if !self.is_ready() && !matches!(request, Request::Init { .. } | Request::Destroy) {
            return Outcome::Done(Err(Errno::IO));
        }
        let begun = *past == Past::Begun;
        let node = InodeId(header.node);
        match request {
            Request::Read { arguments } => self.transfer(arguments, Side::Writable),
            Request::Write { arguments } => self.transfer(arguments, Side::Readable),
            Request::Fsync { arguments } => match self.tree.file(HandleId(arguments.handle)) {
                Ok(file) if arguments.flags & FSYNC_DATA != 0 => {
                    Outcome::Sync { file, how: Durability::Data }
                }
                Ok(file) => Outcome::Sync { file, how: Durability::All },
                Err(errno) => Outcome::Done(Err(errno)),
            },
            Request::Fallocate { arguments } => {
                match self.tree.file_to_write(HandleId(arguments.handle)) {
                    Ok(file) => Outcome::Allocate {
                        file,
                        mode: FallocateFlags::from_bits_retain(arguments.mode),
                        offset: arguments.offset,
                        length: arguments.length,
                    },
                    Err(errno) => Outcome::Done(Err(errno)),
                }
            }
            Request::Forget { .. } | Request::BatchForget { .. } if begun => Outcome::Done(Ok(())),
            Request::Symlink { .. }
            | Request::Mknod { .. }
            | Request::Mkdir { .. }
            | Request::Unlink { .. }
            | Request::Rmdir { .. }
            | Request::Rename { .. }
            | Request::Link { .. }
            | Request::Create { .. }
            | Request::Tmpfile { .. } => Outcome::Done(self.name(header, request, begun)),
            _ => Outcome::Done(self.simple(node, request, begun, room)),
        }
    }

    fn transfer(&mut self, arguments: &TransferIn, side: Side) -> Outcome {
        let handle = HandleId(arguments.handle);
        let file = match side {
            Side::Writable => self.tree.file(handle),
            Side::Readable => self.tree.file_to_write(handle),
        };
        match file {
            Ok(_) if arguments.size > MOST_TRANSFERRED || !is_in_a_file(arguments) => {
                Outcome::Done(Err(Errno::INVAL))
            }
            Ok(file) => {
                let TransferIn { offset, size, .. } = *arguments;
                if side == Side::Readable
                    && arguments.transfer_flags & WRITE_KILL != 0
                    && let Err(errno) = self.tree.kill_set_ids(&file)
                {
                    return Outcome::Done(Err(errno));
                }
                let durable = self.tree.is_durable(handle);
                Outcome::Transfer { file, offset, size, side, durable }
            }
            Err(errno) => Outcome::Done(Err(errno)),
        }
    }

    /// Requests that change no name.
    fn simple(
        &mut self,
        node: InodeId,
        request: &Request<'_>,
        begun: bool,
        room: usize,
    ) -> Result<()> {
        match request {
            Request::Init { init, flags } => self.init(init, *flags),
            Request::Destroy => {
                self.end();
                Ok(())
            }
            Request::Forget { lookups } => {
                self.tree.forget(node, *lookups);
                Ok(())
            }
            Request::BatchForget { list } => {
                for one in list.chunks_exact(size_of::<ForgetOne>()) {
                    let one = ForgetOne::read_from_bytes(one).map_err(|_| Errno::INVAL)?;
                    self.tree.forget(InodeId(one.node), one.lookups);
                }
                Ok(())
            }
            Request::Lookup { name } => {
                let entry = self.tree.look_up(node, name)?;
                self.answer_entry(&entry);
                Ok(())
            }
            Request::Getattr { arguments } => self.getattr(node, arguments),
            Request::Setattr { arguments } => self.setattr(node, arguments),
            Request::Readlink => {
                self.reply = self.tree.read_link(node)?;
                Ok(())
            }
            Request::Open { arguments } => self.open(node, *arguments),
            Request::Opendir => {
                let handle = self.tree.open_directory(node)?.0;
                let open_flags = match self.options.cache {
                    Cache::Always => OPEN_CACHE_DIR | OPEN_KEEP_CACHE,
                    Cache::Auto | Cache::Never => 0,
                };
                self.answer(&OpenOut { handle, open_flags, padding: 0 });
                Ok(())
            }
            Request::Release { handle } => match self.tree.close(*handle) {
                Err(Errno::BADF) if begun => Ok(()),
                result => result,
            },
            Request::Readdir { arguments, plus } => {
                let most = (arguments.size.min(MOST_TRANSFERRED) as usize).min(room);
                let plus = plus.then(|| self.validity());
                let mut entries = Entries { bytes: &mut self.reply, most, plus };
                let handle = HandleId(arguments.handle);
                self.tree.read_directory(node, handle, arguments.offset, &mut entries)
            }
            Request::Statfs => {
                let status = self.tree.statistics(node)?;
                self.answer(&answer::statistics(&status));
                Ok(())
            }
            Request::Getxattr { size, key } => {
                let tree = &mut self.tree;
                Self::value(&mut self.reply, *size, |value| tree.attribute(node, key, value))
            }
            Request::Listxattr { size } => {
                let tree = &mut self.tree;
                Self::value(&mut self.reply, *size, |value| tree.attribute_names(node, value))
            }
            Request::Setxattr { arguments, key, value } => {
                let replace = Replace::from_flags(arguments.flags)?;
                match self.tree.set_attribute(node, key, value, replace) {
                    Err(Errno::EXIST) if begun => Ok(()),
                    result => result,
                }
            }
            Request::Removexattr { key } => match self.tree.remove_attribute(node, key) {
                Err(Errno::NODATA) if begun => Ok(()),
                result => result,
            },
            Request::Lseek { arguments } => {
                let whence = Whence::from_raw(arguments.whence)?;
                let handle = HandleId(arguments.handle);
                let offset = self.tree.seek(handle, arguments.offset, whence)?;
                self.answer(&LseekOut { offset });
                Ok(())
            }
            Request::Copy { arguments } => {
                if arguments.flags != 0 {
                    return Err(Errno::INVAL);
                }
                let from = (HandleId(arguments.handle), arguments.offset);
                let to = (HandleId(arguments.to_handle), arguments.to_offset);
                let size = self.tree.copy(from, to, arguments.length)? as u32;
                self.answer(&WriteOut { size, padding: 0 });
                Ok(())
            }
            _ => Err(Errno::NOSYS),
        }
    }

    fn init(&mut self, init: &InitIn, flags: u64) -> Result<()> {
        self.end();
        if init.major < MAJOR || (init.major == MAJOR && init.minor < LEAST_MINOR) {
            return Err(Errno::PROTO);
        }
        let wanted = InitFlags::from_bits_truncate(flags);
        let agreed = wanted & self.options.offered();
        let bits = agreed.bits();
        if init.major == MAJOR {
            self.tree.ledger().set_protocol_word(AGREED, bits);
            self.tree.ledger().set_protocol_word(READY, 1);
        }
        // To a newer major version this says which one to begin with instead.
        self.answer(&InitOut {
            major: MAJOR,
            minor: MINOR,
            max_readahead: init.max_readahead,
            flags: bits as u32,
            max_background: BACKGROUND,
            congestion_threshold: BACKGROUND / 4 * 3,
            max_write: MOST_TRANSFERRED,
            time_granularity: 1,
            max_pages: (MOST_TRANSFERRED / 4096) as u16,
            map_alignment: 0,
            flags2: (bits >> 32) as u32,
            max_stack_depth: 0,
            unused: [0; 6],
        });
        Ok(())
    }

    fn open(&mut self, node: InodeId, arguments: OpenIn) -> Result<()> {
        let opened = self.tree.open(node, self.open_mode(arguments.flags))?;
        if arguments.open_flags & OPEN_KILL != 0 {
            let file = self.tree.file(opened.handle)?;
            self.tree.kill_set_ids(&file)?;
        }
        let open_flags = self.open_flags();
        self.answer(&OpenOut { handle: opened.handle.0, open_flags, padding: 0 });
        Ok(())
    }

    fn getattr(&mut self, node: InodeId, arguments: &GetattrIn) -> Result<()> {
        let handle = (arguments.flags & GETATTR_HANDLE != 0).then_some(HandleId(arguments.handle));
        let attributes = self.tree.attributes(node, handle)?;
        self.answer(&self.validity().attributes(&attributes));
        Ok(())
    }

    fn setattr(&mut self, node: InodeId, arguments: &SetattrIn) -> Result<()> {
        let has = |flag| arguments.valid & flag != 0;
        let handle = has(SET_HANDLE).then_some(HandleId(arguments.handle));
        let stamp = |set, now, seconds: u64, nanoseconds| match (has(set), has(now)) {
            (false, _) => Stamp::Keep,
            (true, true) => Stamp::Now,
            (true, false) => Stamp::At(Time { seconds: seconds as i64, nanoseconds }),
        };
        let set_ids = if has(SET_KILL) { SetIds::Kill } else { SetIds::Keep };
        let changes = Changes {
            mode: has(SET_MODE).then_some(arguments.mode),
            uid: has(SET_UID).then_some(arguments.uid),
            gid: has(SET_GID).then_some(arguments.gid),
            size: has(SET_SIZE).then_some(Size { bytes: arguments.size, handle, set_ids }),
            accessed: stamp(SET_ATIME, SET_ATIME_NOW, arguments.atime, arguments.atime_nsec),
            modified: stamp(SET_MTIME, SET_MTIME_NOW, arguments.mtime, arguments.mtime_nsec),
        };
        let attributes = self.tree.change(node, &changes)?;
        self.answer(&self.validity().attributes(&attributes));
        Ok(())
    }

    /// A value or, if the driver has no room at all, its length.
    fn value(
        reply: &mut Vec<u8>,
        size: u32,
        get: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result<()> {
        if size == 0 {
            let size = get(&mut [])? as u32;
            reply.extend(GetxattrOut { size, padding: 0 }.as_bytes());
            return Ok(());
        }
        reply.resize((size as usize).min(fileserver::MAX_VALUE), 0);
        let length = get(reply)?;
        reply.truncate(length);
        Ok(())
    }

    pub(super) fn open_mode(&self, flags: u32) -> OpenMode {
        let mode = OpenMode::from_bits(flags);
        if self.agreed(InitFlags::WRITEBACK_CACHE) { mode.for_writeback() } else { mode }
    }

    pub(super) fn open_flags(&self) -> u32 {
        match self.options.cache {
            Cache::Never => OPEN_DIRECT_IO,
            Cache::Auto => 0,
            Cache::Always => OPEN_KEEP_CACHE,
        }
    }

    pub(super) fn answer(&mut self, answer: &(impl IntoBytes + zerocopy::Immutable)) {
        self.reply.extend(answer.as_bytes());
    }

    pub(super) fn answer_entry(&mut self, entry: &fileserver::Entry) {
        self.answer(&self.validity().entry(entry));
    }
}

/// Files end where offsets do; the ring takes what is behind that for something else.
fn is_in_a_file(arguments: &TransferIn) -> bool {
    let end = arguments.offset.checked_add(arguments.size.into());
    end.is_some_and(|end| i64::try_from(end).is_ok())
}

/// What a node of this mode is, unless it is a device.
pub(super) fn special(mode: u32) -> Result<Special> {
    // Without a type it is a file (mknod(2)).
    let typed = if mode & libc::S_IFMT == 0 { FileType::RegularFile.as_raw_mode() } else { mode };
    Special::from_mode(typed)
}

/// What a move does with a name that is there. A swap that has perhaps been made cannot be repeated.
pub(super) fn exchange(flags: u32, begun: bool) -> Result<Exchange> {
    match Exchange::from_flags(flags)? {
        Exchange::Swap if begun => Err(Errno::IO),
        exchange => Ok(exchange),
    }
}
