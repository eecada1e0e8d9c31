//! Linux' bzImage (Documentation/arch/x86/boot.rst).
//!
//! ```text
//!  0      0x1f1          0x202+n      (setup_sects + 1) * 512      + syssize * 16
//!  │ boot │ setup header │ real mode  │ protected mode code        │ (signature...)
//!  │      └─▶ zero page   └ not used   └─▶ pref_address, entered at + 0x200
//! ```

use linux_loader::bootparam::{boot_params, setup_header};

use super::{Image, KernelError, KernelImage, Protocol, Segment, place};
use crate::file::KernelFile;
use crate::memory::GuestAddress;

/// Where the setup header begins, in the file and in the zero page.
const SETUP_HEADER: usize = std::mem::offset_of!(boot_params, hdr);
/// The zero page has room for a setup header up to here.
const SETUP_HEADER_LIMIT: usize = std::mem::offset_of!(boot_params, edd_mbr_sig_buffer);
/// "boot.rst", "Details of Harder Fields": the byte at 0x201 says where the header ends, counted
/// from 0x202.
const HEADER_LENGTH_BYTE: usize = 0x201;
const HEADER_LENGTH_BASE: usize = 0x202;
/// `header`: "`HdrS`".
const MAGIC: [u8; 4] = *b"HdrS";
/// `boot_flag` in the first sector.
const BOOT_FLAG: [u8; 2] = [0x55, 0xaa];
/// The first version with `cmdline_size`.
const VERSION_2_06: u16 = 0x0206;
/// The first version with `xloadflags`, and so the first with a 64-bit entry.
const VERSION_2_12: u16 = 0x020c;
/// `loadflags`: protected-mode code is loaded at 1 MiB or above.
const LOADED_HIGH: u8 = 1 << 0;
/// `xloadflags`: there is a 64-bit entry point.
const XLF_KERNEL_64: u16 = 1 << 0;
/// The 64-bit entry, from where the protected-mode code was loaded.
const ENTRY_64: u64 = 0x200;
/// `setup_sects` of 0 means this.
const DEFAULT_SETUP_SECTORS: u8 = 4;
const SECTOR: u64 = 512;
/// Unit of `syssize`.
const PARAGRAPH: u64 = 16;
/// No kernel accepts a longer command line; the field may say anything.
const MAX_COMMAND_LINE: u32 = 64 << 10;

/// The setup header of a bzImage: the bytes for the zero page, and the fields that boot decisions
/// need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupHeader {
    bytes: Vec<u8>,
    version: u16,
    command_line_max: u32,
    initrd_address_max: u32,
}

impl SetupHeader {
    /// The bytes from offset 0x1f1 of the zero page on, as they are in the file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Boot protocol version: major in the high byte, minor in the low one.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// The longest command line the kernel takes, in bytes without the terminator (`cmdline_size`).
    #[must_use]
    pub fn command_line_max(&self) -> u32 {
        self.command_line_max
    }

    /// The highest address that the last byte of an initrd may have (`initrd_addr_max`).
    #[must_use]
    pub fn initrd_address_max(&self) -> u32 {
        self.initrd_address_max
    }
}

/// Whether the file has the magic numbers of a Linux kernel for x86.
pub(super) fn recognises(head: &[u8]) -> bool {
    let at = |offset: usize, length: usize| head.get(offset..offset + length);
    at(HEADER_LENGTH_BASE, MAGIC.len()) == Some(&MAGIC)
        && at(std::mem::offset_of!(boot_params, hdr.boot_flag), BOOT_FLAG.len()) == Some(&BOOT_FLAG)
}

pub(super) fn probe<F: KernelFile + ?Sized>(
    image: &Image<'_, F>,
    head: &[u8],
) -> Result<KernelImage, KernelError> {
    let header = Header { head, length: image.length };
    let setup = header.setup_header()?;

    let setup_sectors = match header.u8(std::mem::offset_of!(setup_header, setup_sects))? {
        0 => DEFAULT_SETUP_SECTORS,
        sectors => sectors,
    };
    let file_offset = (u64::from(setup_sectors) + 1) * SECTOR;
    let paragraphs = header.u32(std::mem::offset_of!(setup_header, syssize))?;
    let file_size = u64::from(paragraphs) * PARAGRAPH;
    if file_size <= ENTRY_64 {
        let found = format!("{file_size} bytes do not reach the 64-bit entry");
        return Err(KernelError::Malformed { what: "protected-mode code", found });
    }
    image.check("protected-mode code", file_offset, file_size)?;

    let address = GuestAddress(header.u64(std::mem::offset_of!(setup_header, pref_address))?);
    let init_size = header.u32(std::mem::offset_of!(setup_header, init_size))?;
    let memory_size = u64::from(init_size).max(file_size);
    place(address, memory_size)?;

    Ok(KernelImage {
        segments: vec![Segment { file_offset, file_size, memory_size, address }],
        entry: GuestAddress(address.0 + ENTRY_64),
        protocol: Protocol::Linux64 { header: Some(setup) },
    })
}

/// The beginning of the file, and how to find fields of the setup header in it.
struct Header<'a> {
    head: &'a [u8],
    length: u64,
}

impl Header<'_> {
    fn setup_header(&self) -> Result<SetupHeader, KernelError> {
        let version = self.u16(std::mem::offset_of!(setup_header, version))?;
        if version < VERSION_2_06 {
            let [major, minor] = version.to_be_bytes();
            return Err(KernelError::OldProtocol { major, minor });
        }
        if self.u8(std::mem::offset_of!(setup_header, loadflags))? & LOADED_HIGH == 0 {
            return Err(KernelError::ZImage);
        }
        if version < VERSION_2_12
            || self.u16(std::mem::offset_of!(setup_header, xloadflags))? & XLF_KERNEL_64 == 0
        {
            return Err(KernelError::No64BitEntry);
        }
        Ok(SetupHeader {
            bytes: self.header_bytes()?,
            version,
            command_line_max: self
                .u32(std::mem::offset_of!(setup_header, cmdline_size))?
                .min(MAX_COMMAND_LINE - 1),
            initrd_address_max: self.u32(std::mem::offset_of!(setup_header, initrd_addr_max))?,
        })
    }

    /// All of the header that the file says it has and the zero page has room for.
    fn header_bytes(&self) -> Result<Vec<u8>, KernelError> {
        let said = self.field::<1>(HEADER_LENGTH_BYTE - SETUP_HEADER)?[0];
        let end = HEADER_LENGTH_BASE + usize::from(said);
        let least = SETUP_HEADER + std::mem::offset_of!(setup_header, handover_offset);
        if end < least {
            let found = format!("it ends at {end:#x}, its fields at {least:#x}");
            return Err(KernelError::Malformed { what: "setup header", found });
        }
        let end = end.min(SETUP_HEADER_LIMIT);
        let bytes = self.head.get(SETUP_HEADER..end).ok_or_else(|| self.truncated(end))?;
        Ok(bytes.to_vec())
    }

    /// The bytes at `offset` of the setup header.
    fn field<const N: usize>(&self, offset: usize) -> Result<[u8; N], KernelError> {
        let start = SETUP_HEADER + offset;
        self.head
            .get(start..start + N)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| self.truncated(start + N))
    }

    fn truncated(&self, needed: usize) -> KernelError {
        KernelError::Truncated { what: "setup header", needed: needed as u64, length: self.length }
    }

    fn u8(&self, offset: usize) -> Result<u8, KernelError> {
        self.field(offset).map(u8::from_le_bytes)
    }

    fn u16(&self, offset: usize) -> Result<u16, KernelError> {
        self.field(offset).map(u16::from_le_bytes)
    }

    fn u32(&self, offset: usize) -> Result<u32, KernelError> {
        self.field(offset).map(u32::from_le_bytes)
    }

    fn u64(&self, offset: usize) -> Result<u64, KernelError> {
        self.field(offset).map(u64::from_le_bytes)
    }
}
