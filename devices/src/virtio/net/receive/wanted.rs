//! Which frames the driver gets.

use super::slot::Slot;
use crate::virtio::net::LinkState;
use crate::virtio::net::mac::MacAddress;
use crate::virtio::net::network::Network;
use crate::virtio::net::protocol::{ETHERNET_HEADER, HEADER_BYTES, Header, VLAN_TAG};

/// `EtherTypes` before a VLAN tag (802.1Q, 802.1ad).
const TAGGED: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];

/// Whether a frame may have been larger than the buffers of its slot, which it fills: unless it is just
/// as large as a frame may be, `largest` with a tag. Drivers need not have room for tags (virtio 1.3,
/// 5.1.6.3.1: 1526 bytes).
pub(super) fn may_be_cut(slot: &Slot, bytes: u32, largest: u32) -> bool {
    if bytes < slot.bytes() || slot.bytes() == largest {
        return false;
    }
    let untagged = largest - VLAN_TAG as u32;
    let is_large = largest as usize > HEADER_BYTES + usize::from(u16::MAX);
    let mut start = [0; HEADER_BYTES + ETHERNET_HEADER];
    slot.buffers().copy_to(&mut start);
    is_large || slot.bytes() != untagged || TAGGED.iter().any(|tag| start.ends_with(tag))
}

/// Whether the driver gets to see a frame.
pub(super) fn is_wanted(network: &Network, slot: &Slot, bytes: u32) -> bool {
    if network.link.get() == LinkState::Down {
        return false;
    }
    let mut start = [0; HEADER_BYTES + 6];
    slot.buffers().copy_to(&mut start);
    let Some((header, destination)) = start.split_first_chunk::<HEADER_BYTES>() else {
        return false;
    };
    let header: Header = zerocopy::transmute!(*header);
    let length = (bytes as usize).saturating_sub(HEADER_BYTES);
    if !header.suits(network.offloads.get(), length) {
        return false;
    }
    let filter = network.filter.borrow();
    filter.passes_all()
        || destination
            .first_chunk()
            .is_some_and(|destination| filter.passes(MacAddress(*destination), network.mac.get()))
}
