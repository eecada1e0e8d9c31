//! What can be written down.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record<'a> {
    /// When what follows happened: nanoseconds of the host's monotonic clock.
    Time(u64),
    /// The actor began to live, for the first time or once more.
    Born,
    /// What the device is made of, as far as that decides what it does: for those who replay it.
    Made {
        /// As the device writes and reads it.
        #[serde(with = "bytes")]
        state: Cow<'a, [u8]>,
    },
    /// A message passed a channel.
    Message {
        /// Whose channel it is.
        actor: Cow<'a, str>,
        /// Which of them.
        channel: Cow<'a, str>,
        /// The message in words, cut.
        text: Cow<'a, str>,
    },
    /// A driver is ready, and its queues are served.
    Activated {
        /// Feature bits that were agreed on.
        features: u64,
        /// The queues.
        queues: Cow<'a, [QueuePlace]>,
    },
    /// The driver reset the device.
    Reset,
    /// Nothing of the guest is touched any more.
    Paused,
    /// Queues are served again.
    Resumed,
    /// Queues were let go of.
    Detached,
    /// The driver wrote to the configuration space.
    ConfigWritten {
        /// First byte.
        offset: u32,
        /// What it wrote.
        #[serde(with = "bytes")]
        data: Cow<'a, [u8]>,
    },
    /// A buffer was taken from a queue.
    Taken {
        /// The queue.
        queue: u16,
        /// What names the buffer.
        head: u16,
        /// The first bytes that the device may read.
        #[serde(with = "bytes")]
        header: Cow<'a, [u8]>,
        /// What the buffer consists of, in order.
        pieces: Cow<'a, [Piece]>,
        /// The operation on a file that began with that.
        began: Option<Began>,
    },
    /// A further operation on a file began for a buffer.
    Began {
        /// The queue.
        queue: u16,
        /// The buffer.
        head: u16,
        /// What began.
        began: Began,
    },
    /// The operation ended, and another one follows.
    Ended {
        /// The queue.
        queue: u16,
        /// The buffer.
        head: u16,
        /// Bytes, or the negative number of an error.
        result: i32,
    },
    /// A buffer was given back.
    Given(Given),
}

/// A buffer that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The queue.
    pub queue: u16,
    /// The buffer.
    pub head: u16,
    /// What the last operation ended with: bytes, or the negative number of an error.
    pub result: Option<i32>,
    /// Bytes that the device says it wrote.
    pub written: u32,
    /// What it answered.
    pub status: u8,
}

/// A queue that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePlace {
    /// Which.
    pub index: u16,
    /// Descriptors.
    pub size: u16,
    /// Whether its rings are packed.
    pub packed: bool,
}

/// A piece of a buffer. One number: this is written for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub struct Piece {
    /// Bytes.
    pub length: u32,
    /// Whether the device writes it.
    pub writable: bool,
}

impl From<Piece> for u64 {
    fn from(piece: Piece) -> Self {
        u64::from(piece.length) << 1 | u64::from(piece.writable)
    }
}

impl From<u64> for Piece {
    fn from(number: u64) -> Self {
        Self { length: (number >> 1) as u32, writable: number & 1 == 1 }
    }
}

/// Bytes at once, where serde would go through them one by one.
mod bytes {
    use std::borrow::Cow;
    use std::fmt;

    use serde::de::{Deserializer, Error, SeqAccess, Visitor};
    use serde::ser::Serializer;

    #[expect(clippy::ptr_arg, reason = "serde gives the field as it is")]
    pub(super) fn serialize<S: Serializer>(
        bytes: &Cow<'_, [u8]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, 'a, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Cow<'a, [u8]>, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<Vec<u8>, A::Error> {
                let mut all = Vec::new();
                while let Some(byte) = bytes.next_element()? {
                    all.push(byte);
                }
                Ok(all)
            }
        }

        deserializer.deserialize_bytes(Bytes).map(Cow::Owned)
    }
}

/// An operation that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Began {
    /// What is done.
    pub operation: Operation,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// An operation on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Bytes of the file go to the guest.
    Read,
    /// Bytes of the guest go to the file.
    Write,
    /// A range is freed or zeroed.
    Range,
    /// What was written is made durable.
    Sync,
}
