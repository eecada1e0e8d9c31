//! What a driver can do wrong with a virtqueue.

use thiserror::Error;

/// A part of a virtqueue, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingPart {
    /// Split: the descriptor table. Packed: the descriptor ring.
    Descriptors,
    /// Split: the available ring. Packed: the driver event suppression structure.
    Available,
    /// Split: the used ring. Packed: the device event suppression structure.
    Used,
}

impl std::fmt::Display for RingPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "descriptor table",
            Self::Available => "available ring",
            Self::Used => "used ring",
        })
    }
}

/// A virtqueue is set up or filled in a way that the specification forbids. The queue cannot go
/// on; the device needs a reset.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueueError {
    /// The driver chose a size that a ring of this format cannot have.
    #[error("queue size {size} is not valid: {rule}")]
    InvalidSize {
        /// What the driver chose.
        size: u16,
        /// What holds.
        rule: &'static str,
    },
    /// The device was asked to go on from a position that does not exist.
    #[error("the saved position of the queue does not fit: {0}")]
    InvalidPosition(&'static str),
    /// The queue has another format than the negotiated features say.
    #[error("the queue is of a ring format that was not negotiated")]
    FormatNotNegotiated,
    /// A ring does not lie in guest memory.
    #[error("the {part} at {address:#x} ({length} bytes) is not inside guest memory")]
    RingOutsideMemory {
        /// Which.
        part: RingPart,
        /// Guest address.
        address: u64,
        /// Bytes.
        length: usize,
    },
    /// A ring lies at an address that the specification does not allow.
    #[error("the {part} at {address:#x} is not aligned to {alignment} bytes")]
    RingMisaligned {
        /// Which.
        part: RingPart,
        /// Guest address.
        address: u64,
        /// Bytes.
        alignment: usize,
    },
    /// The available index says that there are more buffers than the queue has descriptors.
    #[error(
        "the available index {index} is more than the queue size {size} ahead of used index {used}"
    )]
    AvailableIndexJumped {
        /// What the driver wrote.
        index: u16,
        /// The used index that the driver has seen.
        used: u16,
        /// Queue size.
        size: u16,
    },
    /// The available ring names a descriptor that does not exist.
    #[error("the available ring names descriptor {head}, but the queue has {size}")]
    HeadOutOfRange {
        /// What the driver wrote.
        head: u16,
        /// Queue size.
        size: u16,
    },
    /// A packed ring has a buffer with an id that the device has no room for.
    #[error("the ring has a buffer with id {id}, but the queue has {size}")]
    IdOutOfRange {
        /// What the driver wrote.
        id: u16,
        /// Queue size.
        size: u16,
    },
    /// The driver made descriptors of a packed ring available that the device still has.
    #[error("more descriptors are available than the {size} of the ring")]
    RingOverrun {
        /// Queue size.
        size: u16,
    },
    /// A chain of a packed ring goes on with a descriptor that is not available.
    #[error("a chain goes on at position {position} of the ring, which is not available")]
    ChainNotAvailable {
        /// Position in the ring.
        position: u16,
    },
    /// The driver made a buffer available that the device still has.
    #[error("buffer {head} is made available while the device still has it")]
    HeadInFlight {
        /// Descriptor index (packed: buffer id).
        head: u16,
    },
    /// A descriptor's `next` leaves its table.
    #[error("chain {head}: next is {next}, but the table has {size} descriptors")]
    NextOutOfRange {
        /// First descriptor of the chain.
        head: u16,
        /// What the driver wrote.
        next: u16,
        /// Number of descriptors in the table.
        size: u32,
    },
    /// A chain has more descriptors than its table: it loops.
    #[error("chain {head} loops")]
    Loop {
        /// First descriptor of the chain.
        head: u16,
    },
    /// A chain is longer than the device said it takes.
    #[error("chain {head} has more than the {limit} descriptors that the device takes")]
    TooLong {
        /// First descriptor of the chain.
        head: u16,
        /// What the device takes.
        limit: usize,
    },
    /// A descriptor of length zero.
    #[error("chain {head} has a descriptor of length zero")]
    ZeroLength {
        /// First descriptor of the chain.
        head: u16,
    },
    /// A descriptor points outside guest memory.
    #[error("chain {head}: {length} bytes at {address:#x} are not inside guest memory")]
    BufferOutsideMemory {
        /// First descriptor of the chain.
        head: u16,
        /// Guest address.
        address: u64,
        /// Bytes.
        length: u32,
    },
    /// A device-readable descriptor after a device-writable one.
    #[error("chain {head} has a device-readable descriptor after a device-writable one")]
    ReadableAfterWritable {
        /// First descriptor of the chain.
        head: u16,
    },
    /// The lengths of a chain add up to more than 2^32 - 1 bytes.
    #[error("chain {head} is longer than 4 GiB in total")]
    TotalLengthOverflow {
        /// First descriptor of the chain.
        head: u16,
    },
    /// An indirect descriptor although the feature was not negotiated.
    #[error("chain {head} uses an indirect table that was not negotiated")]
    IndirectNotNegotiated {
        /// First descriptor of the chain.
        head: u16,
    },
    /// An indirect descriptor inside an indirect table.
    #[error("chain {head} has an indirect table inside an indirect table")]
    NestedIndirect {
        /// First descriptor of the chain.
        head: u16,
    },
    /// A descriptor with both INDIRECT and NEXT.
    #[error("chain {head} goes on after its indirect table")]
    IndirectWithNext {
        /// First descriptor of the chain.
        head: u16,
    },
    /// An indirect descriptor of a packed ring that is not alone.
    #[error("chain {head} of a packed ring has an indirect table and other descriptors")]
    IndirectNotAlone {
        /// Buffer id.
        head: u16,
    },
    /// An indirect table whose length is zero or no multiple of 16 bytes.
    #[error("chain {head} has an indirect table of {length} bytes")]
    IndirectLength {
        /// First descriptor of the chain.
        head: u16,
        /// Bytes.
        length: u32,
    },
    /// The in-flight record is not one for this queue.
    #[error("the in-flight record does not fit the queue: {0}")]
    RecordMismatch(&'static str),
}
