//! Files that are no kernel for this machine: saying what they are instead.

use super::KernelError;

/// How many bytes an error shows of a file that nothing is known about.
const SHOWN: usize = 8;

/// Bytes at an offset, and what a file that has them is.
struct Signature {
    offset: usize,
    magic: &'static [u8],
    meaning: Meaning,
}

/// What a signature says.
#[derive(Clone, Copy)]
enum Meaning {
    Compressed(&'static str),
    Architecture(&'static str),
    Other(&'static str),
}

const fn compressed(magic: &'static [u8], format: &'static str) -> Signature {
    Signature { offset: 0, magic, meaning: Meaning::Compressed(format) }
}

const fn other(magic: &'static [u8], what: &'static str) -> Signature {
    Signature { offset: 0, magic, meaning: Meaning::Other(what) }
}

const fn foreign(offset: usize, magic: &'static [u8], name: &'static str) -> Signature {
    Signature { offset, magic, meaning: Meaning::Architecture(name) }
}

/// In the order in which they are tried: the first that fits is the answer.
const SIGNATURES: &[Signature] = &[
    // Documentation/arch/arm64/booting.rst and arch/riscv/boot-image-header.rst: an Image may also
    // begin as an EFI program does.
    foreign(0x38, b"ARM\x64", "aarch64 (an Image file)"),
    foreign(0x38, b"RSC\x05", "RISC-V (an Image file)"),
    foreign(0x24, &[0x18, 0x28, 0x6f, 0x01], "32-bit ARM (a zImage file)"),
    // drivers/firmware/efi/libstub/zboot-header.S
    Signature { offset: 4, magic: b"zimg", meaning: Meaning::Compressed("EFI zboot") },
    compressed(&[0x1f, 0x8b], "gzip"),
    compressed(&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    compressed(&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
    compressed(b"BZh", "bzip2"),
    compressed(&[0x04, 0x22, 0x4d, 0x18], "lz4"),
    compressed(&[0x02, 0x21, 0x4c, 0x18], "lz4 (legacy format)"),
    compressed(&[0x5d, 0, 0], "lzma"),
    compressed(&[0x89, b'L', b'Z', b'O', 0], "lzo"),
    other(b"MZ", "an EFI or Windows program"),
    other(b"070701", "a cpio archive, perhaps an initrd"),
    other(b"070702", "a cpio archive, perhaps an initrd"),
    other(&[b'Q', b'F', b'I', 0xfb], "a qcow2 disk image"),
    other(b"!<arch>\n", "an ar archive, perhaps a Debian package"),
    other(b"PK\x03\x04", "a zip archive"),
    other(&[0x27, 0x05, 0x19, 0x56], "a U-Boot image"),
    other(&[0xd0, 0x0d, 0xfe, 0xed], "a device tree or FIT image"),
    Signature {
        offset: 0x1fe,
        magic: &[0x55, 0xaa],
        meaning: Meaning::Other("a disk image with a boot sector"),
    },
];

/// The error for a file that begins with `head`, which is not empty.
pub(super) fn identify(head: &[u8]) -> KernelError {
    let fits = |signature: &&Signature| {
        head.get(signature.offset..).is_some_and(|rest| rest.starts_with(signature.magic))
    };
    match SIGNATURES.iter().find(fits).map(|signature| signature.meaning) {
        Some(Meaning::Compressed(format)) => KernelError::Compressed { format },
        Some(Meaning::Architecture(name)) => KernelError::Architecture { found: name.to_owned() },
        Some(Meaning::Other(what)) => KernelError::OtherFile { what },
        None if is_text(head) => KernelError::Text,
        None => KernelError::Unrecognised { first: hexadecimal(head) },
    }
}

/// Whether all bytes are UTF-8 text without control characters. The last character may be cut off.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty() && text.chars().all(|c| !c.is_control() || c.is_ascii_whitespace())
}

fn hexadecimal(head: &[u8]) -> String {
    let bytes: Vec<_> = head.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    bytes.join(" ")
}
