//! What has to be true of a disk's file before the disk gets another size. The back end may not
//! change the file itself.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use devices::virtio::blk::{Access, BlockImage};

use crate::control::Refusal;

/// Checks the size, and makes the file larger if it has to be.
pub(super) fn prepare(image: &BlockImage, bytes: u64) -> Result<(), Refusal> {
    let block = u64::from(image.block_size().bytes());
    if bytes == 0 || !bytes.is_multiple_of(block) {
        return Err(Refusal::new(format!("{bytes} bytes are no size of this disk"))
            .hint(format!("it is a multiple of {block} bytes")));
    }
    let failed = |doing: &str, error: std::io::Error| {
        Refusal::new(format!("cannot {doing} the disk's file: {error}"))
    };
    let owned = image.file().try_clone_to_owned().map_err(|error| failed("look at", error))?;
    let mut file = File::from(owned);
    let metadata = file.metadata().map_err(|error| failed("look at", error))?;
    let length = file.seek(SeekFrom::End(0)).map_err(|error| failed("look at", error))?;
    if bytes < image.size() && bytes < length {
        return Err(Refusal::new(format!(
            "the disk does not shrink to {bytes} bytes: its file has {length}, and the rest would \
             be lost"
        ))
        .hint("shrink the file systems in it, then the file with `truncate`, and ask again"));
    }
    if bytes <= length {
        return Ok(());
    }
    if !metadata.is_file() {
        return Err(Refusal::new(format!("the block device has only {length} bytes"))
            .hint("make the device larger first"));
    }
    if image.access() == Access::ReadOnly {
        return Err(Refusal::new(format!(
            "the disk is read-only, and its file has only {length} bytes"
        ))
        .hint("make the file larger with `truncate` first"));
    }
    file.set_len(bytes).map_err(|error| failed("enlarge", error))
}

#[cfg(test)]
mod tests {
    use devices::virtio::blk::DiskOptions;

    use super::*;

    fn image(access: Access) -> (tempfile::NamedTempFile, BlockImage) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(1 << 20).expect("sized");
        let options = DiskOptions { access, ..DiskOptions::new(file.path()) };
        let image = BlockImage::open(&options).expect("opens");
        (file, image)
    }

    fn length(file: &tempfile::NamedTempFile) -> u64 {
        file.as_file().metadata().expect("metadata").len()
    }

    #[test]
    fn a_file_grows_and_never_shrinks() {
        let (file, image) = image(Access::ReadWrite);
        for bytes in [0, 1, 512 + 1, 512, (1 << 20) - 512] {
            assert!(prepare(&image, bytes).is_err(), "{bytes}");
        }
        assert_eq!(length(&file), 1 << 20);
        assert_eq!(prepare(&image, 1 << 20), Ok(()));
        assert_eq!(prepare(&image, 2 << 20), Ok(()));
        assert_eq!(length(&file), 2 << 20);
        // Somebody has made the file smaller: the disk may follow.
        file.as_file().set_len(1 << 19).expect("sized");
        assert_eq!(prepare(&image, 1 << 19), Ok(()));
        assert!(prepare(&image, u64::MAX - 511).is_err());
    }

    #[test]
    fn the_file_of_a_read_only_disk_is_left_alone() {
        let (file, image) = image(Access::ReadOnly);
        assert!(prepare(&image, 2 << 20).is_err());
        file.as_file().set_len(2 << 20).expect("sized");
        assert_eq!(prepare(&image, 2 << 20), Ok(()));
    }
}
