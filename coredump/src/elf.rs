//! The headers of ELF files (System V ABI, chapter 4 and 5), as Linux writes core dumps.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 4] = *b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const TYPE_CORE: u16 = 4;
const MACHINE_X86_64: u16 = 62;

pub(crate) const LOAD: u32 = 1;
pub(crate) const NOTE: u32 = 4;
pub(crate) const EXECUTABLE: u32 = 1;

/// `Elf64_Ehdr`.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct FileHeader {
    pub(crate) magic: [u8; 4],
    pub(crate) class: u8,
    pub(crate) data: u8,
    pub(crate) rest: [u8; 10],
    pub(crate) kind: U16,
    pub(crate) machine: U16,
    pub(crate) version: U32,
    pub(crate) entry: U64,
    pub(crate) program_headers: U64,
    pub(crate) section_headers: U64,
    pub(crate) flags: U32,
    pub(crate) size: U16,
    pub(crate) program_header_size: U16,
    pub(crate) program_header_count: U16,
    pub(crate) sections: [U16; 3],
}

/// `Elf64_Phdr`.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ProgramHeader {
    pub(crate) kind: U32,
    pub(crate) flags: U32,
    pub(crate) offset: U64,
    pub(crate) address: U64,
    pub(crate) physical: U64,
    pub(crate) file_size: U64,
    pub(crate) memory_size: U64,
    pub(crate) alignment: U64,
}

/// `Elf64_Nhdr`.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct NoteHeader {
    pub(crate) name_size: U32,
    pub(crate) size: U32,
    pub(crate) kind: U32,
}

/// What a file of this format is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A core dump of a 64-bit x86 program.
    Core,
    /// A program or library of this kind.
    Program,
    /// Anything else.
    Other,
}

impl FileHeader {
    pub(crate) fn format(&self) -> Format {
        let is_ours = self.magic == MAGIC
            && self.class == CLASS_64
            && self.data == LITTLE_ENDIAN
            && self.machine.get() == MACHINE_X86_64
            && usize::from(self.program_header_size.get()) == size_of::<ProgramHeader>();
        match (is_ours, self.kind.get()) {
            (false, _) => Format::Other,
            (true, TYPE_CORE) => Format::Core,
            (true, _) => Format::Program,
        }
    }
}

/// Notes of a table in memory: their names, kinds and contents.
pub(crate) fn notes(table: &[u8]) -> impl Iterator<Item = (&[u8], u32, &[u8])> {
    let mut rest = table;
    std::iter::from_fn(move || {
        let (header, after) = NoteHeader::read_from_prefix(rest).ok()?;
        let (name, contents) = (header.name_size.get() as usize, header.size.get() as usize);
        let start = name.checked_next_multiple_of(4)?;
        let end = start.checked_add(contents)?;
        let note = (after.get(..name)?, header.kind.get(), after.get(start..end)?);
        rest = after.get(end.checked_next_multiple_of(4)?..).unwrap_or_default();
        Some(note)
    })
}
