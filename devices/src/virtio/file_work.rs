//! What a request asks of a file while it is in flight: shared directories have it in common, whatever is spoken over
//! their queues.

use std::io;

use executor::Fd;
use fileserver::Errno;

use super::blk::IoStrategy;
use super::queue::{Chain, GuestBuffers, Side, Tag, Wait};
use super::worker::PacedQueue;

/// Requests that are done before they are published: the driver works on these while the next are
/// done, and each takes some microseconds of the system's time.
pub(super) const BATCH: u16 = 4;
/// The same in bytes, which take their time to be copied.
pub(super) const BATCH_BYTES: u32 = 64 << 10;

/// The file of a request, and data on its way to or from it.
#[derive(Debug)]
pub(super) struct FileWork {
    file: Option<Fd>,
    /// Data that was not moved yet.
    data: GuestBuffers,
    /// Whether each write waits for the disk.
    durable: bool,
    offset: u64,
    moved: u32,
}

/// A transfer that a request asks for.
pub(super) struct Transfer {
    pub(super) file: Fd,
    pub(super) offset: u64,
    pub(super) most: u32,
    pub(super) side: Side,
    /// Whether each write waits for the disk.
    pub(super) durable: bool,
}

impl FileWork {
    /// Of no request.
    pub(super) fn new(data: GuestBuffers) -> Self {
        Self { file: None, data, durable: false, offset: 0, moved: 0 }
    }

    /// Have the file kept open until the request is over.
    pub(super) fn hold(&mut self, file: Fd) {
        self.file = Some(file);
    }

    /// The request is over.
    pub(super) fn end(&mut self) {
        self.file = None;
    }

    /// Note what is to be moved; its bytes. What is read goes behind `header` bytes. An error if less is to be
    /// written than there is of it.
    pub(super) fn prepare(
        &mut self,
        chain: &Chain,
        transfer: Transfer,
        header: u32,
    ) -> Result<u32, Errno> {
        let Transfer { file, offset, most, side, durable } = transfer;
        self.data.fill(chain, side);
        if side == Side::Writable {
            self.data.advance(header);
        } else if self.data.bytes() < most {
            return Err(Errno::INVAL);
        }
        self.data.truncate(most);
        (self.durable, self.offset, self.moved) = (durable, offset, 0);
        self.file = Some(file);
        Ok(self.data.bytes())
    }

    /// Move what is left. Its end is a completion.
    pub(super) fn transfer(
        &self,
        paced: &mut PacedQueue,
        strategy: IoStrategy,
        head: Tag,
        side: Side,
    ) {
        let Some(file) = &self.file else { return };
        let wait = match (strategy, side) {
            (IoStrategy::Ring, _) => None,
            (IoStrategy::Adaptive, Side::Writable) => Some(Wait::Never),
            // A write into the page cache waits as long as the making of a name, at worst, and most file
            // systems know no way to write that does not wait.
            (IoStrategy::Adaptive, Side::Readable) if self.durable => None,
            (IoStrategy::Adaptive, Side::Readable) | (IoStrategy::InMemory, _) => {
                Some(Wait::ForMemory)
            }
        };
        let (data, ops) = (&self.data, &mut paced.ops);
        let submitted = match wait {
            Some(wait) => {
                ops.transfer_inline(file, wait, data, side, self.offset, head).map(|_| ())
            }
            None => ops.transfer(file, data, side, self.offset, head),
        };
        submitted.expect("there is room for one operation of each head");
    }

    /// Note what a completion says. What was moved in all, if that is all that there is; an error if it is nothing.
    pub(super) fn completed(
        &mut self,
        paced: &mut PacedQueue,
        result: &io::Result<u32>,
    ) -> Option<Result<u32, Errno>> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Err(error) if self.moved == 0 => Some(Err(errno(error))),
            Err(_) => Some(Ok(self.moved)),
            Ok(bytes) => {
                let bytes = (*bytes).min(self.data.bytes());
                self.data.advance(bytes);
                self.offset += u64::from(bytes);
                self.moved += bytes;
                paced.moved(bytes.into());
                // A read of nothing is the end of the file; a short one need not be.
                (bytes == 0 || self.data.bytes() == 0).then_some(Ok(self.moved))
            }
        }
    }
}

/// As the client gets it.
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
