//! Programs and libraries of a process: files that are mapped and can be executed.

use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

use crate::core::Segment;
use crate::elf::{self, FileHeader, Format, NOTE, ProgramHeader};
use crate::memory::Memory;
use crate::notes::MappedFile;

/// More are not told of.
const MAX_MODULES: usize = 512;
/// Build ids have 20 bytes or fewer; any length is allowed.
const MAX_BUILD_ID_BYTES: usize = 64;
const NT_GNU_BUILD_ID: u32 = 3;

/// Kinds of the auxiliary vector (getauxval(3)).
const AT_ENTRY: u64 = 9;
const AT_SYSINFO_EHDR: u64 = 33;
/// The kernel's own library, by the name that tools know it by.
const VDSO: &str = "linux-gate.so";

/// A program or library.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) name: String,
    /// Empty if it has none.
    pub(crate) build_id: Vec<u8>,
}

/// The modules of a process, its program first. Segments are in the order of their addresses.
pub(crate) fn find(files: &[MappedFile], segments: &[Segment], auxiliary: &[u8]) -> Vec<Module> {
    let mut modules: Vec<Module> = Vec::new();
    for file in files {
        match modules.last_mut() {
            Some(last) if last.name == file.name => last.end = last.end.max(file.end),
            _ => modules.push(Module {
                start: file.start,
                end: file.end,
                name: file.name.clone(),
                build_id: Vec::new(),
            }),
        }
    }
    modules.retain(|module| {
        let first = segments.partition_point(|segment| segment.address < module.start);
        let segments = segments[first..].iter();
        segments.take_while(|it| it.address < module.end).any(|it| it.is_executable)
    });
    modules.truncate(MAX_MODULES);
    if let Some(start) = value(auxiliary, AT_SYSINFO_EHDR)
        && let Some(segment) = segments.iter().find(|segment| segment.address == start)
    {
        let end = start + segment.memory_size;
        modules.push(Module { start, end, name: VDSO.into(), build_id: Vec::new() });
    }
    if let Some(entry) = value(auxiliary, AT_ENTRY)
        && let Some(at) = modules.iter().position(|it| it.start <= entry && entry < it.end)
    {
        modules[..=at].rotate_right(1);
    }
    modules
}

fn value(auxiliary: &[u8], wanted: u64) -> Option<u64> {
    let (pairs, _) = auxiliary.as_chunks::<16>();
    pairs
        .iter()
        .filter_map(|pair| <[U64; 2]>::read_from_bytes(pair).ok())
        .find_map(|[kind, value]| (kind.get() == wanted).then_some(value.get()))
}

impl Module {
    /// Finds its build id, if its headers were read and lead there.
    pub(crate) fn identify(&mut self, memory: &Memory) {
        if let Some(id) = memory.from(self.start).and_then(build_id) {
            self.build_id = id.to_vec();
        }
    }
}

fn build_id(file: &[u8]) -> Option<&[u8]> {
    let (header, _) = FileHeader::read_from_prefix(file).ok()?;
    if header.format() != Format::Program {
        return None;
    }
    let table = file.get(usize::try_from(header.program_headers.get()).ok()?..)?;
    let count = usize::from(header.program_header_count.get());
    let headers = table.chunks_exact(size_of::<ProgramHeader>()).take(count);
    headers
        .filter_map(|bytes| ProgramHeader::read_from_bytes(bytes).ok())
        .filter(|header| header.kind.get() == NOTE)
        .filter_map(|header| {
            let start = usize::try_from(header.offset.get()).ok()?;
            let size = usize::try_from(header.file_size.get()).ok()?;
            file.get(start..start.checked_add(size)?)
        })
        .flat_map(elf::notes)
        .find(|(name, kind, _)| *name == b"GNU\0" && *kind == NT_GNU_BUILD_ID)
        .map(|(_, _, id)| &id[..id.len().min(MAX_BUILD_ID_BYTES)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_file_may_have_a_build_id(mut file in proptest::collection::vec(0..8_u8, 0..400)) {
            let head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0";
            if let Some(start) = file.get_mut(..head.len()) {
                start.copy_from_slice(head);
            }
            if file.len() > 64 {
                file[54..56].copy_from_slice(&[56, 0]);
            }
            build_id(&file);
        }
    }
}
