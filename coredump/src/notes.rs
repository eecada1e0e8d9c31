//! The notes of a core dump, in the order in which Linux writes them: the thread that crashed with what is the
//! process's, then the other threads.

use std::io::Read;

use zerocopy::FromBytes;
use zerocopy::little_endian::{I32, U64};
use zerocopy::{Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Error;
use crate::core::Stream;
use crate::elf::NoteHeader;
use crate::thread::{FLOAT_BYTES, Status, Thread};

/// Threads that are told of. The one that crashed is the first.
pub(crate) const MAX_THREADS: usize = 512;
/// The longest note that is read: the kernel ends the list of files there (`MAX_FILE_NOTE_SIZE`).
const MAX_NOTE_BYTES: u32 = 4 << 20;
/// Files in a process; by default the kernel allows fewer mappings (`vm.max_map_count`).
const MAX_FILES: usize = 65_536;
/// A name longer than this is no path (`PATH_MAX`).
const MAX_NAME_BYTES: usize = 4096;
/// More than there are kinds of them.
const MAX_AUXILIARY_BYTES: u32 = 4096;

const PRSTATUS: u32 = 1;
const FPREGSET: u32 = 2;
const AUXV: u32 = 6;
const SIGINFO: u32 = 0x5349_4749;
const FILE: u32 = 0x4649_4c45;

/// The beginning of `siginfo_t`, for signals that have an address.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct SignalInfo {
    pub(crate) signal: I32,
    pub(crate) error: I32,
    pub(crate) code: I32,
    pub(crate) padding: I32,
    pub(crate) address: U64,
}

/// A part of a file in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MappedFile {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) name: String,
}

/// What the notes say.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) threads: Vec<Thread>,
    pub(crate) signal: Option<SignalInfo>,
    pub(crate) auxiliary: Vec<u8>,
    pub(crate) files: Vec<MappedFile>,
}

/// Reads `size` bytes of notes; those that nobody needs are passed over.
pub(crate) fn read<R: Read>(stream: &mut Stream<R>, size: u64) -> Result<Notes, Error> {
    let mut notes = Notes::default();
    let end = stream.at().saturating_add(size);
    let header_bytes = size_of::<NoteHeader>() as u64;
    while stream.at() + header_bytes <= end {
        let header: NoteHeader = stream.object()?;
        stream.skip(u64::from(header.name_size.get()).next_multiple_of(4))?;
        let size = header.size.get();
        let after = stream.at() + u64::from(size).next_multiple_of(4);
        let wanted = match header.kind.get() {
            PRSTATUS => size as usize >= size_of::<Status>(),
            FPREGSET => size as usize >= FLOAT_BYTES,
            SIGINFO => size as usize >= size_of::<SignalInfo>(),
            AUXV => size <= MAX_AUXILIARY_BYTES,
            FILE => true,
            _ => false,
        };
        if wanted && size <= MAX_NOTE_BYTES {
            notes.take(header.kind.get(), &stream.bytes(size as usize)?);
        }
        stream.skip_to(after)?;
    }
    Ok(notes)
}

impl Notes {
    fn take(&mut self, kind: u32, contents: &[u8]) {
        match kind {
            PRSTATUS if self.threads.len() < MAX_THREADS => {
                if let Ok((Status { id, registers, .. }, _)) = Status::read_from_prefix(contents) {
                    self.threads.push(Thread { id: id.get(), registers, float: None });
                }
            }
            FPREGSET => {
                if let (Some(thread), Some(float)) =
                    (self.threads.last_mut(), contents.first_chunk())
                    && thread.float.is_none()
                {
                    thread.float = Some(Box::new(*float));
                }
            }
            SIGINFO => self.signal = SignalInfo::read_from_prefix(contents).ok().map(|(it, _)| it),
            AUXV => self.auxiliary = contents.to_vec(),
            FILE => self.files = files(contents),
            _ => {}
        }
    }
}

/// A count and a unit, `start, end, offset` for each, and then their names.
fn files(contents: &[u8]) -> Vec<MappedFile> {
    let Ok(([count, _], rest)) = <[U64; 2]>::read_from_prefix(contents) else {
        return Vec::new();
    };
    let count = usize::try_from(count.get()).unwrap_or(usize::MAX).min(MAX_FILES);
    let Ok((places, names)) = <[[U64; 3]]>::ref_from_prefix_with_elems(rest, count) else {
        return Vec::new();
    };
    places
        .iter()
        .zip(names.split(|&byte| byte == 0))
        .filter(|(_, name)| !name.is_empty() && name.len() <= MAX_NAME_BYTES)
        .map(|([start, end, _], name)| MappedFile {
            start: start.get(),
            end: end.get(),
            name: String::from_utf8_lossy(name).into_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_have_places_and_names() {
        let mut note = Vec::new();
        for number in [2_u64, 4096, 0x1000, 0x2000, 0, 0x5000, 0x6000, 1] {
            note.extend(number.to_le_bytes());
        }
        note.extend(b"/bin/a\0/lib/b\0");
        let expected = |start, end, name: &str| MappedFile { start, end, name: name.into() };
        assert_eq!(
            files(&note),
            [expected(0x1000, 0x2000, "/bin/a"), expected(0x5000, 0x6000, "/lib/b")]
        );
        assert_eq!(files(&note[..40]), []);
    }

    proptest! {
        #[test]
        fn any_list_of_files_is_read(count in 0..5_u64, bytes: Vec<u8>) {
            let mut note = count.to_le_bytes().to_vec();
            note.extend(bytes);
            files(&note);
        }
    }
}
