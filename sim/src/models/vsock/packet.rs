//! Packets (virtio 1.3 section 5.10.6), as a driver writes and reads them.

pub(super) const HEADER: usize = 44;
pub(super) const HOST: u64 = 2;
pub(super) const GUEST: u64 = 7;

pub(super) const REQUEST: u16 = 1;
pub(super) const RESPONSE: u16 = 2;
pub(super) const RST: u16 = 3;
pub(super) const SHUTDOWN: u16 = 4;
pub(super) const RW: u16 = 5;
pub(super) const CREDIT_UPDATE: u16 = 6;
pub(super) const CREDIT_REQUEST: u16 = 7;

const STREAM: u16 = 1;

/// What differs between the packets of streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) op: u16,
    pub(super) guest_port: u32,
    pub(super) host_port: u32,
    pub(super) flags: u32,
    /// Room of the sender, and what has left that.
    pub(super) room: u32,
    pub(super) taken: u32,
    pub(super) data: Vec<u8>,
}

impl Packet {
    /// As a guest sends it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.data.len());
        bytes.extend(GUEST.to_le_bytes());
        bytes.extend(HOST.to_le_bytes());
        bytes.extend(self.guest_port.to_le_bytes());
        bytes.extend(self.host_port.to_le_bytes());
        bytes.extend((self.data.len() as u32).to_le_bytes());
        bytes.extend(STREAM.to_le_bytes());
        bytes.extend(self.op.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.room.to_le_bytes());
        bytes.extend(self.taken.to_le_bytes());
        bytes.extend(&self.data);
        bytes
    }

    /// As a guest gets it.
    ///
    /// # Panics
    ///
    /// If it is none, or not for this guest.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        assert!(bytes.len() >= HEADER, "a packet of {} bytes", bytes.len());
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        assert_eq!((long(0), long(8)), (HOST, GUEST), "from the host to the guest");
        assert_eq!(word(24) as usize, bytes.len() - HEADER, "the length of a packet");
        assert_eq!(short(28), STREAM, "the kind of a packet");
        Self {
            host_port: word(16),
            guest_port: word(20),
            op: short(30),
            flags: word(32),
            room: word(36),
            taken: word(40),
            data: bytes[HEADER..].to_vec(),
        }
    }
}
