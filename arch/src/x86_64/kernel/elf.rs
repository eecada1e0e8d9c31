//! ELF executables: Linux' `vmlinux`, other PVH kernels, and the built-in guest.
//!
//! Program headers say what goes where (System V ABI, chapter 5, "Program Header"); `p_paddr` is the
//! guest physical address. A note named `Xen` of type `XEN_ELFNOTE_PHYS32_ENTRY` (18) holds the PVH
//! entry (Xen, xen/include/public/elfnote.h). Without one the file is entered at `e_entry` by the
//! 64-bit Linux boot protocol.

use object::LittleEndian as LE;
use object::elf::{
    self, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_CORE, ET_DYN, ET_EXEC, ET_REL,
    FileHeader64, PT_LOAD, PT_NOTE, ProgramHeader64,
};
use object::read::elf::NoteIterator;

use super::{Image, KernelError, KernelImage, Protocol, Segment, place};
use crate::file::KernelFile;
use crate::memory::GuestAddress;

/// Type of the note that holds the PVH entry.
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
/// Program headers that a kernel may have. Linux has 5; a hostile file may claim 65,535.
const MAX_PROGRAM_HEADERS: u16 = 64;
/// Bytes that a note segment may have. Linux' has some 500.
const MAX_NOTES_LENGTH: u64 = 64 << 10;
/// Offset and length of `e_ident`, `e_type` and `e_machine`, which mean the same in every ELF file.
const COMMON_HEADER_LENGTH: usize = 20;

/// Whether the file is an ELF file, of whatever kind.
pub(super) fn recognises(head: &[u8]) -> bool {
    head.starts_with(&ELFMAG)
}

pub(super) fn probe<F: KernelFile + ?Sized>(
    image: &Image<'_, F>,
    head: &[u8],
) -> Result<KernelImage, KernelError> {
    check_machine(image, head)?;
    let header = parse::<FileHeader64<LE>>(image, "ELF header", head)?;
    let program_headers = read_program_headers(image, head, header)?;

    let mut segments = Vec::new();
    let mut pvh_entry = None;
    for program_header in &program_headers {
        match program_header.p_type.get(LE) {
            PT_LOAD => segments.extend(loadable(image, program_header)?),
            PT_NOTE if pvh_entry.is_none() => pvh_entry = find_pvh_entry(image, program_header)?,
            _ => {}
        }
    }
    check_overlaps(&segments)?;

    let (protocol, name, entry) = match pvh_entry {
        Some(entry) => (Protocol::Pvh, "PVH", entry),
        None => (Protocol::Linux64 { header: None }, "64-bit", header.e_entry.get(LE)),
    };
    let entry = GuestAddress(entry);
    if segments.is_empty() {
        return Err(KernelError::NothingToLoad);
    }
    if !segments.iter().any(|segment| segment.memory().contains(entry)) {
        return Err(KernelError::EntryOutside { protocol: name, entry });
    }
    Ok(KernelImage { segments, entry, protocol })
}

/// Checks what can be checked before the width of the file's fields is known.
fn check_machine<F: ?Sized>(image: &Image<'_, F>, head: &[u8]) -> Result<(), KernelError> {
    let truncated = KernelError::Truncated {
        what: "ELF header",
        needed: size_of::<FileHeader64<LE>>() as u64,
        length: image.length,
    };
    let Some(common) = head.get(..COMMON_HEADER_LENGTH) else {
        return Err(truncated);
    };
    let (class, data) = (common[4], common[5]);
    let field = |offset: usize| {
        let bytes = [common[offset], common[offset + 1]];
        if data == ELFDATA2LSB.0 { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
    };
    let (kind, machine) = (elf::FileType(field(16)), elf::Machine(field(18)));
    if machine != EM_X86_64 {
        return Err(KernelError::Architecture { found: machine_name(machine) });
    }
    if class != ELFCLASS64.0 || data != ELFDATA2LSB.0 {
        return Err(KernelError::ElfKind { what: "a 32-bit or big-endian ELF file" });
    }
    let what = match kind {
        ET_EXEC => return Ok(()),
        ET_DYN => "a shared library or position-independent program",
        ET_REL => "an object file or kernel module",
        ET_CORE => "a core dump",
        _ => "an ELF file of an unknown type",
    };
    Err(KernelError::ElfKind { what })
}

fn machine_name(machine: elf::Machine) -> String {
    let known = match machine {
        elf::EM_386 => "32-bit x86",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_ARM => "32-bit ARM",
        elf::EM_RISCV => "RISC-V",
        elf::EM_PPC64 => "64-bit PowerPC",
        elf::EM_S390 => "s390",
        elf::EM_LOONGARCH => "LoongArch",
        elf::EM_MIPS => "MIPS",
        other => return format!("another architecture (ELF machine {})", other.0),
    };
    known.to_owned()
}

/// The structure at the beginning of `bytes`.
fn parse<'b, T: object::pod::Pod>(
    image: &Image<'_, impl ?Sized>,
    what: &'static str,
    bytes: &'b [u8],
) -> Result<&'b T, KernelError> {
    let (value, _rest) = object::pod::from_bytes(bytes).map_err(|()| KernelError::Truncated {
        what,
        needed: size_of::<T>() as u64,
        length: image.length,
    })?;
    Ok(value)
}

fn read_program_headers<F: KernelFile + ?Sized>(
    image: &Image<'_, F>,
    head: &[u8],
    header: &FileHeader64<LE>,
) -> Result<Vec<ProgramHeader64<LE>>, KernelError> {
    let what = "ELF program headers";
    let (count, entry_size) = (header.e_phnum.get(LE), header.e_phentsize.get(LE));
    if count == 0 {
        return Err(KernelError::NothingToLoad);
    }
    if count > MAX_PROGRAM_HEADERS {
        let found = format!("{count} of them, at most {MAX_PROGRAM_HEADERS} make sense");
        return Err(KernelError::Malformed { what, found });
    }
    if usize::from(entry_size) != size_of::<ProgramHeader64<LE>>() {
        return Err(KernelError::Malformed { what, found: format!("{entry_size} bytes each") });
    }
    let offset = header.e_phoff.get(LE);
    let size = u64::from(count) * u64::from(entry_size);
    image.check(what, offset, size)?;

    // They mostly follow the ELF header, so that they have been read with it.
    let in_head = usize::try_from(offset)
        .ok()
        .and_then(|start| head.get(start..)?.get(..size as usize).map(<[u8]>::to_vec));
    let bytes = match in_head {
        Some(bytes) => bytes,
        None => image.read(what, offset, size)?,
    };
    bytes
        .chunks_exact(usize::from(entry_size))
        .map(|chunk| parse::<ProgramHeader64<LE>>(image, what, chunk).copied())
        .collect()
}

/// The segment of a `PT_LOAD` header; `None` for one that takes no memory.
fn loadable<F: KernelFile + ?Sized>(
    image: &Image<'_, F>,
    header: &ProgramHeader64<LE>,
) -> Result<Option<Segment>, KernelError> {
    let segment = Segment {
        file_offset: header.p_offset.get(LE),
        file_size: header.p_filesz.get(LE),
        memory_size: header.p_memsz.get(LE),
        address: GuestAddress(header.p_paddr.get(LE)),
    };
    if segment.file_size > segment.memory_size {
        let found = format!(
            "it has {} bytes in the file and {} in memory",
            segment.file_size, segment.memory_size
        );
        return Err(KernelError::Malformed { what: "ELF segment", found });
    }
    if segment.memory_size == 0 {
        return Ok(None);
    }
    place(segment.address, segment.memory_size)?;
    image.check("ELF segment", segment.file_offset, segment.file_size)?;
    Ok(Some(segment))
}

fn check_overlaps(segments: &[Segment]) -> Result<(), KernelError> {
    let mut places: Vec<_> = segments.iter().map(Segment::memory).collect();
    places.sort_unstable_by_key(|place| place.start());
    match places.windows(2).find(|pair| pair[0].overlaps(pair[1])) {
        Some(pair) => Err(KernelError::Overlap { first: pair[0], second: pair[1] }),
        None => Ok(()),
    }
}

/// The PVH entry, if the note segment has the note that says it.
fn find_pvh_entry<F: KernelFile + ?Sized>(
    image: &Image<'_, F>,
    header: &ProgramHeader64<LE>,
) -> Result<Option<u64>, KernelError> {
    let what = "ELF notes";
    let malformed = |found: String| KernelError::Malformed { what, found };
    let size = header.p_filesz.get(LE);
    if size > MAX_NOTES_LENGTH {
        return Err(malformed(format!("{size} bytes, at most {MAX_NOTES_LENGTH} make sense")));
    }
    let bytes = image.read(what, header.p_offset.get(LE), size)?;
    let mut notes = NoteIterator::<FileHeader64<LE>>::new(LE, header.p_align.get(LE), &bytes)
        .map_err(|error| malformed(error.to_string()))?;
    while let Some(note) = notes.next().map_err(|error| malformed(error.to_string()))? {
        if note.name() != b"Xen" || note.n_type(LE).0 != XEN_ELFNOTE_PHYS32_ENTRY {
            continue;
        }
        let value = note.desc();
        if value.len() != 4 && value.len() != 8 {
            return Err(malformed(format!("the PVH entry has {} bytes", value.len())));
        }
        let mut entry = [0; 8];
        entry[..value.len()].copy_from_slice(value);
        return Ok(Some(u64::from_le_bytes(entry)));
    }
    Ok(None)
}
