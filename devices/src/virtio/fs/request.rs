//! Requests, read from bytes of the driver.

use std::ffi::CStr;

use fileserver::{Errno, HandleId, InodeId, Name};
use zerocopy::FromBytes;

use super::protocol::{
    BatchForgetIn, CopyIn, CreateIn, FallocateIn, ForgetIn, ForgetOne, FsyncIn, GetattrIn,
    GetxattrIn, InHeader, InitIn, InitInMore, LinkIn, LseekIn, MkdirIn, MknodIn, Opcode, OpenIn,
    ReleaseIn, Rename2In, RenameIn, SetattrIn, SetxattrIn, TransferIn,
};

/// The most bytes of a request that are not data to write: an attribute's name and value.
pub(super) const MOST_ARGUMENTS: usize = fileserver::MAX_VALUE + 1024;

/// A request, checked as far as its own bytes go.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack, one at a time")]
pub(super) enum Request<'a> {
    Init { init: InitIn, flags: u64 },
    Destroy,
    Interrupt,
    Forget { lookups: u64 },
    BatchForget { list: &'a [u8] },
    Lookup { name: Name },
    Getattr { arguments: GetattrIn },
    Setattr { arguments: SetattrIn },
    Readlink,
    Symlink { name: Name, text: &'a CStr },
    Mknod { arguments: MknodIn, name: Name },
    Mkdir { arguments: MkdirIn, name: Name },
    Unlink { name: Name },
    Rmdir { name: Name },
    Rename { from: Name, to_node: InodeId, to: Name, flags: u32 },
    Link { node: InodeId, name: Name },
    Open { arguments: OpenIn },
    Create { arguments: CreateIn, name: Name },
    Tmpfile { arguments: CreateIn },
    Read { arguments: TransferIn },
    Write { arguments: TransferIn },
    Statfs,
    Release { handle: HandleId },
    Fsync { arguments: FsyncIn },
    Setxattr { arguments: SetxattrIn, key: &'a CStr, value: &'a [u8] },
    Getxattr { size: u32, key: &'a CStr },
    Listxattr { size: u32 },
    Removexattr { key: &'a CStr },
    Opendir,
    Readdir { arguments: TransferIn, plus: bool },
    Fallocate { arguments: FallocateIn },
    Lseek { arguments: LseekIn },
    Copy { arguments: CopyIn },
}

/// What is left of a request's bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<T: FromBytes>(&mut self) -> Result<T, Errno> {
        let (value, rest) = T::read_from_prefix(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = rest;
        Ok(value)
    }

    fn text(&mut self) -> Result<&'a CStr, Errno> {
        let text = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = &self.0[text.count_bytes() + 1..];
        Ok(text)
    }

    fn name(&mut self) -> Result<Name, Errno> {
        Ok(Name::new(self.text()?.to_bytes())?)
    }
}

impl<'a> Request<'a> {
    /// Reads a request. `ENOSYS` for what this server has no answer to, `EINVAL` for what is none.
    pub(super) fn decode(header: &InHeader, bytes: &'a [u8]) -> Result<Self, Errno> {
        let mut reader = Reader(bytes);
        let opcode = Opcode::from_raw(header.opcode).ok_or(Errno::NOSYS)?;
        Ok(match opcode {
            Opcode::Init => {
                let init: InitIn = reader.take()?;
                let more = reader.take::<InitInMore>().map_or(0, |more| more.flags2);
                Self::Init { init, flags: u64::from(init.flags) | u64::from(more) << 32 }
            }
            Opcode::Destroy => Self::Destroy,
            Opcode::Interrupt => Self::Interrupt,
            Opcode::Forget => Self::Forget { lookups: reader.take::<ForgetIn>()?.lookups },
            Opcode::BatchForget => {
                let count = reader.take::<BatchForgetIn>()?.count as usize;
                let bytes = count.checked_mul(size_of::<ForgetOne>()).ok_or(Errno::INVAL)?;
                Self::BatchForget { list: reader.0.get(..bytes).ok_or(Errno::INVAL)? }
            }
            Opcode::Lookup => Self::Lookup { name: reader.name()? },
            Opcode::Getattr => Self::Getattr { arguments: reader.take()? },
            Opcode::Setattr => Self::Setattr { arguments: reader.take()? },
            Opcode::Readlink => Self::Readlink,
            Opcode::Symlink => Self::Symlink { name: reader.name()?, text: reader.text()? },
            Opcode::Mknod => Self::Mknod { arguments: reader.take()?, name: reader.name()? },
            Opcode::Mkdir => Self::Mkdir { arguments: reader.take()?, name: reader.name()? },
            Opcode::Unlink => Self::Unlink { name: reader.name()? },
            Opcode::Rmdir => Self::Rmdir { name: reader.name()? },
            Opcode::Rename => {
                let to_node = InodeId(reader.take::<RenameIn>()?.to);
                Self::Rename { from: reader.name()?, to_node, to: reader.name()?, flags: 0 }
            }
            Opcode::Rename2 => {
                let Rename2In { to, flags, .. } = reader.take()?;
                let (from, to_node) = (reader.name()?, InodeId(to));
                Self::Rename { from, to_node, to: reader.name()?, flags }
            }
            Opcode::Link => {
                let node = InodeId(reader.take::<LinkIn>()?.node);
                Self::Link { node, name: reader.name()? }
            }
            Opcode::Open => Self::Open { arguments: reader.take()? },
            Opcode::Create => Self::Create { arguments: reader.take()?, name: reader.name()? },
            Opcode::Tmpfile => Self::Tmpfile { arguments: reader.take()? },
            Opcode::Read => Self::Read { arguments: reader.take()? },
            Opcode::Write => Self::Write { arguments: reader.take()? },
            Opcode::Statfs => Self::Statfs,
            Opcode::Release | Opcode::Releasedir => {
                Self::Release { handle: HandleId(reader.take::<ReleaseIn>()?.handle) }
            }
            Opcode::Fsync | Opcode::Fsyncdir => Self::Fsync { arguments: reader.take()? },
            Opcode::Setxattr => {
                let arguments: SetxattrIn = reader.take()?;
                let key = reader.text()?;
                let value = reader.0.get(..arguments.size as usize).ok_or(Errno::INVAL)?;
                Self::Setxattr { arguments, key, value }
            }
            Opcode::Getxattr => {
                Self::Getxattr { size: reader.take::<GetxattrIn>()?.size, key: reader.text()? }
            }
            Opcode::Listxattr => Self::Listxattr { size: reader.take::<GetxattrIn>()?.size },
            Opcode::Removexattr => Self::Removexattr { key: reader.text()? },
            Opcode::Opendir => Self::Opendir,
            Opcode::Readdir => Self::Readdir { arguments: reader.take()?, plus: false },
            Opcode::Readdirplus => Self::Readdir { arguments: reader.take()?, plus: true },
            Opcode::Fallocate => Self::Fallocate { arguments: reader.take()? },
            Opcode::Lseek => Self::Lseek { arguments: reader.take()? },
            Opcode::CopyFileRange => Self::Copy { arguments: reader.take()? },
        })
    }

    /// Whether doing it twice is not the same as doing it once.
    pub(super) fn is_noted(&self) -> bool {
        matches!(
            self,
            Self::Lookup { .. }
                | Self::Symlink { .. }
                | Self::Mknod { .. }
                | Self::Mkdir { .. }
                | Self::Unlink { .. }
                | Self::Rmdir { .. }
                | Self::Rename { .. }
                | Self::Link { .. }
                | Self::Open { .. }
                | Self::Opendir
                | Self::Create { .. }
                | Self::Tmpfile { .. }
                | Self::Release { .. }
                | Self::Setxattr { .. }
                | Self::Removexattr { .. }
                | Self::Forget { .. }
                | Self::BatchForget { .. }
        )
    }

    /// Whether the driver waits for an answer.
    pub(super) fn is_answered(opcode: u32) -> bool {
        let silent = [Opcode::Forget, Opcode::BatchForget, Opcode::Interrupt];
        !silent.iter().any(|silent| *silent as u32 == opcode)
    }
}
