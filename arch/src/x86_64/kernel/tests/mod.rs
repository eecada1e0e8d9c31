//! Kernel files made by hand, and what is common to the tests on them.

mod bzimage;
mod elf;
mod hostile;
mod unknown;

use super::*;

/// Bytes of a well-formed ELF kernel: one loaded segment at 1 MiB and, if asked for, a PVH note.
pub(crate) fn elf(pvh_entry: Option<u64>) -> Vec<u8> {
    let mut file = ElfFile::default();
    file.load(0x1000, 0x200, 0x3000, 0x10_0000);
    if let Some(entry) = pvh_entry {
        file.note(4, 18, b"Xen\0", &entry.to_le_bytes());
    }
    file.bytes(0x10_0010)
}

#[derive(Default)]
struct ElfFile {
    program_headers: Vec<[u64; 6]>,
    notes: Vec<u8>,
}

impl ElfFile {
    const NOTES_AT: u64 = 0x800;
    const LENGTH: usize = 0x2000;

    fn header(&mut self, kind: u64, offset: u64, file: u64, memory: u64, address: u64, align: u64) {
        self.program_headers.push([kind, offset, address, file, memory, align]);
    }

    fn load(&mut self, offset: u64, file: u64, memory: u64, address: u64) {
        self.header(1, offset, file, memory, address, 0x1000);
    }

    fn note(&mut self, align: u64, kind: u32, name: &[u8], value: &[u8]) {
        for number in [name.len() as u32, value.len() as u32, kind] {
            self.notes.extend_from_slice(&number.to_le_bytes());
        }
        for part in [name, value] {
            self.notes.extend_from_slice(part);
            self.notes.resize(self.notes.len().next_multiple_of(4), 0);
        }
        let length = self.notes.len() as u64;
        self.header(4, Self::NOTES_AT, length, length, 0, align);
    }

    fn bytes(&self, entry: u64) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(16, 0);
        bytes.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
        bytes.extend_from_slice(&entry.to_le_bytes());
        bytes.extend_from_slice(&64_u64.to_le_bytes());
        bytes.resize(54, 0);
        bytes.extend_from_slice(&56_u16.to_le_bytes());
        bytes.extend_from_slice(&(self.program_headers.len() as u16).to_le_bytes());
        bytes.resize(64, 0);
        for &[kind, offset, address, file, memory, align] in &self.program_headers {
            bytes.extend_from_slice(&(kind as u32).to_le_bytes());
            bytes.extend_from_slice(&7_u32.to_le_bytes());
            for value in [offset, address, address, file, memory, align] {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
        assert!(bytes.len() <= Self::NOTES_AT as usize);
        bytes.resize(Self::NOTES_AT as usize, 0);
        bytes.extend_from_slice(&self.notes);
        bytes.resize(Self::LENGTH, 0);
        bytes
    }
}

/// Bytes of a well-formed bzImage with four setup sectors, as Linux 6.1 writes it.
pub(crate) fn bzimage() -> Vec<u8> {
    let mut bytes = vec![0; 5 * 512 + 0x1000];
    let mut set = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    set(0x1f1, &[4]);
    set(0x1f4, &(0x1000_u32 / 16).to_le_bytes());
    set(0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    set(0x202, b"HdrS");
    set(0x206, &0x020f_u16.to_le_bytes());
    set(0x211, &[1]);
    set(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    set(0x236, &1_u16.to_le_bytes());
    set(0x238, &2047_u32.to_le_bytes());
    set(0x258, &0x100_0000_u64.to_le_bytes());
    set(0x260, &0x300_0000_u32.to_le_bytes());
    bytes
}

fn probe(bytes: &[u8]) -> Result<KernelImage, KernelError> {
    KernelImage::probe(bytes)
}

fn refusal(bytes: &[u8]) -> String {
    probe(bytes).expect_err("the file is no kernel").to_string()
}

fn patched(mut bytes: Vec<u8>, at: usize, value: &[u8]) -> Vec<u8> {
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}
