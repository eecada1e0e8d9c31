//! As much of TCP (RFC 9293) as a stream in one direction takes, where nothing but a window's end ever
//! holds it up: no options but those of the first packet, no congestion, and all from the first
//! byte not acknowledged again where something was lost.

use std::net::Ipv4Addr;

use super::SEGMENT;
use crate::frames::HEADER;

/// Where the Ethernet header ends.
const ETHERNET: usize = 14;
const IP: usize = 20;
const TCP: usize = 20;
/// Bytes before those of a stream, with virtio's header.
pub(super) const HEADERS: usize = HEADER + ETHERNET + IP + TCP;
/// What is looked at of a frame: all headers that the kernel makes for such a stream.
pub(super) const START: usize = HEADERS + 40;
/// Options of the first packet: the size of segments, and how windows are scaled.
const OPTIONS: [u8; 8] = [2, 4, (SEGMENT >> 8) as u8, SEGMENT as u8, 1, 3, 3, OUR_SCALE];
/// Our windows are given in units of 128 bytes.
const OUR_SCALE: u8 = 7;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

const NEEDS_CHECKSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;

/// Both ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wire {
    /// The host's interface.
    pub(super) host_mac: [u8; 6],
    pub(super) our_mac: [u8; 6],
    pub(super) host: Ipv4Addr,
    pub(super) ours: Ipv4Addr,
    pub(super) host_port: u16,
    pub(super) our_port: u16,
}

/// All headers of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    bytes: [u8; HEADERS + OPTIONS.len()],
    length: usize,
}

impl Head {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// What came in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    flags: u8,
    sequence: u32,
    acknowledged: u32,
    window: u16,
    scale: u8,
    /// Where its part of the stream begins, virtio's header included.
    pub(super) at: usize,
    /// Bytes of the stream.
    pub(super) length: usize,
}

impl Wire {
    fn head(&self, flags: u8, sequence: u32, acknowledged: u32, window: u16, data: usize) -> Head {
        let options: &[u8] = if flags & SYN != 0 { &OPTIONS } else { &[] };
        let mut head = Head { bytes: [0; _], length: HEADERS + options.len() };
        let (virtio, frame) = head.bytes.split_at_mut(HEADER);
        let tcp_bytes = TCP + options.len() + data;
        virtio[0] = NEEDS_CHECKSUM;
        if data > SEGMENT {
            virtio[1] = GSO_TCPV4;
            virtio[2..4].copy_from_slice(&((HEADERS - HEADER) as u16).to_le_bytes());
            virtio[4..6].copy_from_slice(&(SEGMENT as u16).to_le_bytes());
        }
        virtio[6..8].copy_from_slice(&((ETHERNET + IP) as u16).to_le_bytes());
        // Where TCP has its checksum.
        virtio[8..10].copy_from_slice(&16_u16.to_le_bytes());
        frame[..6].copy_from_slice(&self.host_mac);
        frame[6..12].copy_from_slice(&self.our_mac);
        frame[12..14].copy_from_slice(&[8, 0]);
        let (ip, tcp) = frame[ETHERNET..].split_at_mut(IP);
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&((IP + tcp_bytes) as u16).to_be_bytes());
        // Not to be fragmented; 64 hops; TCP.
        ip[6] = 0x40;
        ip[8..10].copy_from_slice(&[64, 6]);
        ip[12..16].copy_from_slice(&self.ours.octets());
        ip[16..20].copy_from_slice(&self.host.octets());
        let checksum = !sum(ip);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        tcp[..2].copy_from_slice(&self.our_port.to_be_bytes());
        tcp[2..4].copy_from_slice(&self.host_port.to_be_bytes());
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        tcp[8..12].copy_from_slice(&acknowledged.to_be_bytes());
        tcp[12] = ((TCP + options.len()) as u8 / 4) << 4;
        tcp[13] = flags;
        tcp[14..16].copy_from_slice(&window.to_be_bytes());
        // What a checksum that is left to others begins with: the pseudo header.
        let length = tcp_bytes as u16;
        let pseudo = [&ip[12..20], &[0, 6], &length.to_be_bytes()].concat();
        tcp[16..18].copy_from_slice(&sum(&pseudo).to_be_bytes());
        tcp[TCP..TCP + options.len()].copy_from_slice(options);
        head
    }

    /// What a frame says to us, from its start: virtio's header first. None if it is none of this stream.
    pub(super) fn parse(&self, frame: &[u8]) -> Option<Segment> {
        let number = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
        let long = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let packet = frame.get(HEADER..)?;
        if packet.get(12..14)? != [8, 0] {
            return None;
        }
        let ip = packet.get(ETHERNET..)?;
        let ip_header = usize::from(*ip.first()? & 15) * 4;
        let is_ours = ip.get(9) == Some(&6) && ip.get(12..16)? == self.host.octets();
        let tcp = ip.get(ip_header..).filter(|tcp| tcp.len() >= TCP && is_ours)?;
        if number(tcp) != self.host_port || number(&tcp[2..]) != self.our_port {
            return None;
        }
        let tcp_header = usize::from(tcp[12] >> 4) * 4;
        let flags = tcp[13];
        let length = usize::from(number(&ip[2..])).checked_sub(ip_header + tcp_header)?;
        let options = tcp.get(TCP..tcp_header)?;
        let scale = if flags & SYN != 0 { scale_of(options) } else { 0 };
        Some(Segment {
            flags,
            sequence: long(&tcp[4..]),
            acknowledged: long(&tcp[8..]),
            window: number(&tcp[14..]),
            scale,
            at: HEADER + ETHERNET + ip_header + tcp_header,
            length,
        })
    }
}

/// How windows are scaled, out of the options of a first packet.
fn scale_of(mut options: &[u8]) -> u8 {
    while let [kind, rest @ ..] = options {
        match (kind, rest) {
            (0, _) => break,
            (1, _) => options = rest,
            (3, [3, scale, ..]) => return *scale.min(&14),
            (_, [length, ..]) if *length >= 2 => {
                options = options.get(usize::from(*length)..).unwrap_or_default();
            }
            _ => break,
        }
    }
    0
}

/// The sum of 16-bit numbers as IP has it, not inverted.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + sum) as u16
}

/// What a segment meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The other side is there.
    Connected,
    /// It has more of what was sent, or takes more.
    Acknowledged,
    /// The next bytes of the stream.
    Data,
    /// Bytes that were there before, or come before others that are missing.
    OutOfOrder,
    /// The other side gave up.
    Over,
}

/// This end of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    wire: Wire,
    /// Our window, in bytes.
    window: usize,
    /// What is sent next, and the most that ever was.
    next: u32,
    furthest: u32,
    acknowledged: u32,
    /// What the other side takes beyond what it acknowledged.
    room: u32,
    scale: u8,
    received: u32,
    /// Bytes of the stream that were acknowledged to us.
    sent: u64,
    /// Bytes of the stream that came.
    came: u64,
    /// Bytes that the other side does not know of yet that they came.
    unacknowledged: usize,
}

impl Connection {
    pub(super) fn new(wire: Wire, window: usize) -> Self {
        Self {
            wire,
            window,
            next: 0,
            furthest: 0,
            acknowledged: 0,
            room: 0,
            scale: 0,
            received: 0,
            sent: 0,
            came: 0,
            unacknowledged: 0,
        }
    }

    /// The first packet.
    pub(super) fn open(&mut self) -> Head {
        (self.next, self.furthest) = (1, 1);
        self.wire.head(SYN, 0, 0, u16::MAX, 0)
    }

    /// The last one.
    pub(super) fn reset(&self) -> Head {
        self.wire.head(RST | ACK, self.next, self.received, 0, 0)
    }

    /// Says how far this side is.
    pub(super) fn acknowledge(&mut self) -> Head {
        self.unacknowledged = 0;
        self.head(0)
    }

    /// How many bytes came that the other side was not told of.
    pub(super) fn unacknowledged(&self) -> usize {
        self.unacknowledged
    }

    /// Bytes that may be sent.
    pub(super) fn room(&self) -> usize {
        (self.room as usize).min(self.window).saturating_sub(self.under_way())
    }

    /// Bytes that were sent and not acknowledged.
    pub(super) fn under_way(&self) -> usize {
        self.next.wrapping_sub(self.acknowledged) as usize
    }

    /// Where in the stream the next byte to send is.
    pub(super) fn position(&self) -> u64 {
        self.sent + self.under_way() as u64
    }

    /// Where in the stream the next byte to come is.
    pub(super) fn expected(&self) -> u64 {
        self.came
    }

    /// The headers of the next bytes.
    pub(super) fn send(&mut self, bytes: usize) -> Head {
        let head = self.head(bytes);
        self.next = self.next.wrapping_add(bytes as u32);
        if is_after(self.next, self.furthest) {
            self.furthest = self.next;
        }
        head
    }

    /// Something was lost: all that was not acknowledged is to be sent again.
    pub(super) fn go_back(&mut self) {
        self.next = self.acknowledged;
    }

    fn head(&self, bytes: usize) -> Head {
        let window = (self.window >> OUR_SCALE) as u16;
        self.wire.head(ACK, self.next, self.received, window, bytes)
    }

    pub(super) fn parse(&self, frame: &[u8]) -> Option<Segment> {
        self.wire.parse(frame)
    }

    /// Goes by what came.
    pub(super) fn take(&mut self, segment: &Segment) -> Meaning {
        if segment.flags & (RST | FIN) != 0 {
            return Meaning::Over;
        }
        if segment.flags & SYN != 0 {
            self.scale = segment.scale;
            self.received = segment.sequence.wrapping_add(1);
            self.acknowledged = segment.acknowledged;
            // The window of a first packet is not scaled.
            self.room = segment.window.into();
            return Meaning::Connected;
        }
        let ack = segment.acknowledged;
        if is_after(ack, self.acknowledged) && !is_after(ack, self.furthest) {
            self.sent += u64::from(ack.wrapping_sub(self.acknowledged));
            self.acknowledged = ack;
            if is_after(ack, self.next) {
                self.next = ack;
            }
        }
        if ack == self.acknowledged {
            self.room = u32::from(segment.window) << self.scale;
        }
        if segment.length == 0 {
            return Meaning::Acknowledged;
        }
        if segment.sequence != self.received {
            return Meaning::OutOfOrder;
        }
        self.received = self.received.wrapping_add(segment.length as u32);
        self.came += segment.length as u64;
        self.unacknowledged += segment.length;
        Meaning::Data
    }
}

/// Whether a sequence number comes after another, round the end of all numbers.
fn is_after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> Wire {
        Wire {
            host_mac: [2, 0, 0, 0, 0, 1],
            our_mac: [2, 0, 0, 0, 0, 2],
            host: Ipv4Addr::new(10, 0, 0, 1),
            ours: Ipv4Addr::new(10, 0, 0, 2),
            host_port: 7,
            our_port: 9,
        }
    }

    /// The other side of it.
    fn mirrored(wire: Wire) -> Wire {
        Wire {
            host_mac: wire.our_mac,
            our_mac: wire.host_mac,
            host: wire.ours,
            ours: wire.host,
            host_port: wire.our_port,
            our_port: wire.host_port,
        }
    }

    #[test]
    fn two_ends_understand_each_other() {
        let mut ours = Connection::new(wire(), 1 << 16);
        let host = mirrored(wire());
        let first = host.parse(ours.open().bytes()).unwrap();
        assert_eq!((first.flags, first.scale, first.length), (SYN, OUR_SCALE, 0));
        let answer = host.head(SYN | ACK, u32::MAX - 1, 1, 1000, 0);
        let segment = ours.parse(answer.bytes()).unwrap();
        assert_eq!(ours.take(&segment), Meaning::Connected);
        assert_eq!((ours.room(), ours.under_way()), (1000, 0));
        // More than a segment is one to be cut up.
        let head = ours.send(2000);
        assert_eq!(head.bytes()[1], GSO_TCPV4);
        let sent = host.parse(&[head.bytes(), &[0; 2000]].concat()).unwrap();
        assert_eq!((sent.sequence, sent.length, sent.at), (1, 2000, HEADERS));
        assert_eq!((ours.room(), ours.position()), (0, 2000));
        // Half of it came; a window is in units of 128 now.
        let half = host.head(ACK, u32::MAX, 1001, 100, 0);
        let segment = ours.parse(half.bytes()).unwrap();
        assert_eq!(ours.take(&segment), Meaning::Acknowledged);
        assert_eq!((ours.under_way(), ours.room()), (1000, 100 * 128 - 1000));
        ours.go_back();
        assert_eq!(ours.position(), 1000);
        // What comes again late moves it on.
        let whole = host.head(ACK, u32::MAX, 2001, 100, 0);
        ours.take(&ours.parse(whole.bytes()).unwrap());
        assert_eq!((ours.position(), ours.under_way()), (2000, 0));
        // Nobody can acknowledge what was never sent.
        let liar = host.head(ACK, u32::MAX, 5000, 100, 0);
        ours.take(&ours.parse(liar.bytes()).unwrap());
        assert_eq!(ours.position(), 2000);
    }

    #[test]
    fn bytes_come_in_order_or_not_at_all() {
        let mut ours = Connection::new(wire(), 1 << 16);
        let host = mirrored(wire());
        ours.open();
        let answer = host.head(SYN | ACK, u32::MAX - 1, 1, 1000, 0);
        ours.take(&ours.parse(answer.bytes()).unwrap());
        let take = |ours: &mut Connection, sequence| {
            let head = host.head(ACK, sequence, 1, 1000, 100);
            let frame = [head.bytes(), &[0; 100]].concat();
            ours.take(&ours.parse(&frame).unwrap())
        };
        assert_eq!(take(&mut ours, u32::MAX), Meaning::Data);
        assert_eq!(take(&mut ours, 199), Meaning::OutOfOrder);
        assert_eq!(take(&mut ours, 99), Meaning::Data);
        assert_eq!((ours.expected(), ours.unacknowledged()), (200, 200));
        let acknowledged = host.parse(ours.acknowledge().bytes()).unwrap();
        assert_eq!((acknowledged.acknowledged, ours.unacknowledged()), (199, 0));
    }

    #[test]
    fn any_frame_is_one_or_none() {
        let mut random = fastrand::Rng::with_seed(1);
        let wire = wire();
        let good = mirrored(wire).head(SYN | ACK, 1, 1, 1000, 0);
        for _ in 0..10_000 {
            let mut frame = good.bytes().to_vec();
            frame.truncate(random.usize(..=frame.len()));
            for _ in 0..random.usize(..4) {
                let length = frame.len();
                if let Some(byte) = frame.get_mut(random.usize(..length.max(1))) {
                    *byte = random.u8(..);
                }
            }
            if let Some(segment) = wire.parse(&frame) {
                Connection::new(wire, 1000).take(&segment);
            }
        }
    }
}
