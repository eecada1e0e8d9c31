//! Takes the ELF `vmlinux` out of a bzImage.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

/// Offsets in the set-up header (Linux, Documentation/arch/x86/boot.rst).
const SETUP_SECTORS: usize = 0x1f1;
const HEADER_MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// How a payload is compressed, told by its first bytes, and what unpacks it.
const FORMATS: &[(&[u8], &str)] = &[
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x1f\x8b", "gzip"),
];

/// Writes the ELF image inside `bzimage` to `vmlinux`.
pub(crate) fn extract(bzimage: &Path, vmlinux: &Path) -> Result<()> {
    let failed = || format!("cannot take the kernel out of {}", bzimage.display());
    let image = fs::read(bzimage).with_context(failed)?;
    let elf = unpack(payload(&image).with_context(failed)?).with_context(failed)?;
    fs::write(vmlinux, elf).with_context(|| format!("cannot write {}", vmlinux.display()))
}

/// The compressed payload, with the four bytes of unpacked size that the kernel's build appends.
fn payload(image: &[u8]) -> Result<&[u8]> {
    let word = |offset: usize| -> Result<usize> {
        let bytes = image.get(offset..).and_then(|rest| rest.first_chunk::<4>());
        Ok(u32::from_le_bytes(*bytes.context("the file is too short")?) as usize)
    };
    ensure!(image.get(HEADER_MAGIC..HEADER_MAGIC + 4) == Some(b"HdrS"), "this is no bzImage");
    // Zero stands for four in images of the oldest boot protocols.
    let setup_sectors = match image[SETUP_SECTORS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup_sectors + 1) * 512 + word(PAYLOAD_OFFSET)?;
    let end = start + word(PAYLOAD_LENGTH)?;
    image.get(start..end).context("the payload lies outside of the file")
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>> {
    let Some((_, program)) = FORMATS.iter().find(|(magic, _)| payload.starts_with(magic)) else {
        bail!("the payload is compressed in an unknown way");
    };
    let (body, size) = payload.split_last_chunk::<4>().context("the payload is too short")?;
    // gzip has the size in its own trailer; the other formats take it as garbage.
    let body = if *program == "gzip" { payload } else { body };
    let mut child = Command::new(program)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let mut input = child.stdin.take().context("no pipe to the unpacker")?;
    let output = thread::scope(|scope| {
        // When the unpacker dies early, its exit status says more than the broken pipe.
        scope.spawn(move || drop(input.write_all(body)));
        child.wait_with_output()
    })?;
    ensure!(output.status.success(), "{program} ended with {}", output.status);
    let expected = u32::from_le_bytes(*size) as usize;
    ensure!(
        output.stdout.len() == expected,
        "{program} gave {} bytes, expected {expected}",
        output.stdout.len()
    );
    ensure!(output.stdout.starts_with(b"\x7fELF"), "what was unpacked is no ELF image");
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_bzimage_is_refused() {
        assert!(payload(b"").is_err());
        assert!(payload(&[0; 4096]).is_err());
        let mut image = vec![0; 4096];
        image[HEADER_MAGIC..HEADER_MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].fill(0xff);
        assert!(payload(&image).is_err());
    }
}
