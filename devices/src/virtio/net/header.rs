//! What a frame's header may say to a driver.
//!
//! The kernel makes the headers of frames that come from a tap and honours what the driver took on.
//! Frames of a socket come from anybody. Both are checked: a driver is never given an offload that
//! it did not negotiate, nor offsets beyond the frame.
//!
//! Headers of frames that the driver sends go to the kernel as they are: it checks each field
//! against the frame and refuses what is wrong.

use super::offload::Offloads;
use super::protocol::{
    ETHERNET_HEADER, FLAG_DATA_VALID, FLAG_NEEDS_CSUM, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6,
    GSO_UDP, GSO_UDP_L4, Header,
};

impl Header {
    /// Whether a frame of `length` bytes with this header may go to a driver that takes `offloads`.
    pub(super) fn suits(self, offloads: Offloads, length: usize) -> bool {
        if length < ETHERNET_HEADER || self.flags & !(FLAG_NEEDS_CSUM | FLAG_DATA_VALID) != 0 {
            return false;
        }
        if self.flags != 0 && !offloads.contains(Offloads::CHECKSUM) {
            return false;
        }
        let needs_checksum = self.flags & FLAG_NEEDS_CSUM != 0;
        if needs_checksum {
            let field = usize::from(self.csum_start) + usize::from(self.csum_offset);
            if field + 2 > length {
                return false;
            }
        }
        let needed = match self.gso_type & !GSO_ECN {
            GSO_NONE => return self.gso_type == GSO_NONE,
            GSO_TCPV4 => Offloads::TSO4,
            GSO_TCPV6 => Offloads::TSO6,
            GSO_UDP if self.gso_type & GSO_ECN == 0 => Offloads::UFO,
            GSO_UDP_L4 if self.gso_type & GSO_ECN == 0 => Offloads::USO4 | Offloads::USO6,
            _ => return false,
        };
        let needed = match self.gso_type & GSO_ECN {
            0 => needed,
            _ => needed | Offloads::ECN,
        };
        // Virtio 1.3 section 5.1.6.4.1: segmentation comes with a checksum to fill in. Taps leave
        // that out for UDP fragments, whose checksum is over all of them.
        let checksum = needs_checksum || needed == Offloads::UFO;
        checksum && offloads.contains(needed) && self.gso_size > 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TSO: Header = Header {
        flags: FLAG_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };

    #[test]
    fn only_negotiated_offloads_reach_the_driver() {
        let all = Offloads::all();
        assert!(Header::default().suits(Offloads::empty(), 60));
        assert!(TSO.suits(all, 9000));
        assert!(!TSO.suits(all - Offloads::TSO4, 9000));
        assert!(!TSO.suits(all - Offloads::CHECKSUM, 9000));
        assert!(!Header { gso_size: 0, ..TSO }.suits(all, 9000));
        assert!(!Header { flags: 0, ..TSO }.suits(all, 9000));
        let ecn = Header { gso_type: GSO_TCPV6 | GSO_ECN, ..TSO };
        assert!(ecn.suits(all, 9000));
        assert!(!ecn.suits(all - Offloads::ECN, 9000));
        assert!(!Header { gso_type: GSO_ECN, ..TSO }.suits(all, 9000));
        assert!(!Header { gso_type: GSO_UDP_L4 | GSO_ECN, ..TSO }.suits(all, 9000));
        let fragments = Header { gso_type: GSO_UDP, flags: 0, ..TSO };
        assert!(fragments.suits(all, 9000));
        assert!(!fragments.suits(all - Offloads::UFO, 9000));
        let valid = Header { flags: FLAG_DATA_VALID, ..Header::default() };
        assert!(valid.suits(all, 60) && !valid.suits(Offloads::empty(), 60));
    }

    #[test]
    fn offsets_stay_inside_the_frame() {
        let all = Offloads::all();
        let partial = Header { gso_type: GSO_NONE, ..TSO };
        assert!(partial.suits(all, 52));
        assert!(!partial.suits(all, 51));
        let far = Header { csum_start: u16::MAX, csum_offset: u16::MAX, ..partial };
        assert!(!far.suits(all, 65550));
        assert!(!Header::default().suits(all, 13));
    }

    proptest! {
        #[test]
        fn any_header_is_judged(bytes: [u8; 12], offloads: u32, length in 0usize..70000) {
            let header: Header = zerocopy::transmute!(bytes);
            let offloads = Offloads::from_bits_truncate(offloads);
            if header.suits(offloads, length) {
                prop_assert!(length >= 14);
                prop_assert!(header.flags & !3 == 0);
                prop_assert!(header.gso_type == 0 || offloads.has_large_frames());
                prop_assert!(header.flags == 0 || offloads.contains(Offloads::CHECKSUM));
            }
        }
    }
}
