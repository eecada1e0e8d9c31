//! The ring's table of registered files: operations on them skip the descriptor lookup and its
//! reference counting.

use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::IoUring;

use crate::driver::FileId;

#[derive(Default)]
pub(super) struct FileTable {
    /// Free slots; the lowest is last.
    free: Vec<u32>,
}

impl FileTable {
    /// Registers an empty table of up to `size` slots; an empty one where the kernel refuses.
    pub(super) fn open(ring: &IoUring, size: u32) -> Self {
        let mut size = size;
        while size > 0 {
            let submitter = ring.submitter();
            let registered = submitter
                .register_files_sparse(size)
                // Before Linux 5.19 a table is made sparse by descriptors of -1.
                .or_else(|_| submitter.register_files(&vec![-1; size as usize]));
            match registered {
                Ok(()) => break,
                // The table may not be larger than the process's limit of open files.
                Err(error) if error.raw_os_error() == Some(libc::EMFILE) => size /= 2,
                Err(error) => {
                    log::debug!("io_uring works without registered files: {error}");
                    size = 0;
                }
            }
        }
        FileTable { free: (0..size).rev().collect() }
    }

    pub(super) fn register(&mut self, ring: &IoUring, fd: BorrowedFd<'_>) -> FileId {
        let Some(slot) = self.free.pop() else {
            return FileId::Plain;
        };
        let updated = ring.submitter().register_files_update(slot, &[fd.as_raw_fd()]);
        if matches!(updated, Ok(1)) {
            return FileId::Slot(slot);
        }
        // Some files cannot be registered: rings, for one.
        self.free.push(slot);
        FileId::Plain
    }

    pub(super) fn unregister(&mut self, ring: &IoUring, file: FileId) {
        let FileId::Slot(slot) = file else {
            return;
        };
        match ring.submitter().register_files_update(slot, &[-1]) {
            Ok(_) => self.free.push(slot),
            // The slot still holds the file; it must not be given to another one.
            Err(error) => log::debug!("cannot unregister a file from the ring: {error}"),
        }
    }
}
