//! Where a kernel's bytes come from: an open file, or a slice that is part of the program.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Something that holds a kernel image and can be read at any offset.
pub trait KernelFile {
    /// Its length in bytes.
    ///
    /// Fails with [`io::ErrorKind::IsADirectory`] for a directory and
    /// [`io::ErrorKind::InvalidInput`] for what has no length, as a pipe or a terminal.
    fn length(&self) -> io::Result<u64>;

    /// Fills `buffer` with the bytes from `offset`; fails with
    /// [`io::ErrorKind::UnexpectedEof`] if there are not that many.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl KernelFile for File {
    fn length(&self) -> io::Result<u64> {
        let metadata = self.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !metadata.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(metadata.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl KernelFile for [u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..))
            .and_then(|rest| rest.get(..buffer.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_reads_inside_and_refuses_outside() {
        let bytes: &[u8] = &[1, 2, 3, 4];
        let mut two = [0; 2];
        bytes.read_exact_at(&mut two, 2).unwrap();
        assert_eq!(two, [3, 4]);
        for offset in [3, 4, 5, u64::MAX] {
            let error = bytes.read_exact_at(&mut two, offset).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_directory_and_a_device_are_told_apart_from_a_file() {
        let directory = File::open("/").unwrap();
        assert_eq!(directory.length().unwrap_err().kind(), io::ErrorKind::IsADirectory);
        let device = File::open("/dev/null").unwrap();
        assert_eq!(device.length().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
