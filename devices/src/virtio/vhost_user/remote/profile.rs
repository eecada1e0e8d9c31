//! What a device looks like to the driver: what its back end offers, without what we cannot carry over.

use super::super::front_end::{FrontEnd, FrontEndError};
use super::{RemoteError, RemoteKind, RemoteOptions};
use crate::virtio::backend::{ConfigWrites, DeviceProfile};
use crate::virtio::net::MacAddress;

/// Descriptors of each queue. Nobody says how many there may be; all back ends have so many, as QEMU's front end
/// asks for no fewer.
fn queue_size(kind: RemoteKind) -> u16 {
    match kind {
        RemoteKind::Net => 256,
        RemoteKind::Rng => 64,
        RemoteKind::Blk | RemoteKind::Fs | RemoteKind::Vsock => 128,
    }
}

/// The same of a vsock's last queue, for events.
const EVENT_QUEUE_SIZE: u16 = 16;

/// `VIRTIO_F_INDIRECT_DESC`, `VIRTIO_F_EVENT_IDX` and `VIRTIO_F_VERSION_1` (virtio 1.3 section 6). Not packed
/// rings: where one stands cannot be read from it when its back end has died.
const RING_FEATURES: u64 = 1 << 28 | 1 << 29 | VERSION_1;
const VERSION_1: u64 = 1 << 32;
/// Feature bits of a kind of device.
const DEVICE_FEATURES: u64 = (1 << 24) - 1;

/// `VIRTIO_BLK_F_CONFIG_WCE`: nobody forwards what the driver writes to the configuration space.
const BLK_CONFIG_WCE: u64 = 1 << 11;
/// Where `num_queues` is in a disk's configuration space (virtio 1.3 section 5.2.4).
const BLK_NUM_QUEUES: usize = 34;
/// A disk's configuration space as far as drivers know it.
const BLK_CONFIG: u32 = 60;

const NET_MTU: u64 = 1 << 3;
const NET_MAC: u64 = 1 << 5;
const NET_STATUS: u64 = 1 << 16;
/// All that takes a control queue, which the protocol does not have: a front end would have to play it.
const NET_CONTROLLED: u64 = 1 << 2 | 1 << 17 | 1 << 18 | 1 << 19 | 1 << 21 | 1 << 22 | 1 << 23;
/// `mac`, `status`, `max_virtqueue_pairs` and `mtu` (virtio 1.3 section 5.1.4).
const NET_CONFIG: u32 = 12;

/// `tag` and `num_request_queues` (virtio 1.3 section 5.11.4).
const FS_CONFIG: u32 = 40;
const FS_TAG: usize = 36;

/// The guest's context identifier (virtio 1.3 section 5.10.4).
const VSOCK_CONFIG: u32 = 8;

/// Features that a driver is offered whatever a back end offers: a network has an address, theirs or ours.
pub(super) fn ours(kind: RemoteKind) -> u64 {
    match kind {
        RemoteKind::Net => NET_MAC,
        RemoteKind::Blk | RemoteKind::Fs | RemoteKind::Vsock | RemoteKind::Rng => 0,
    }
}

/// What a back end said of itself.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) features: u64,
    pub(super) queues: u64,
    /// The beginning of its configuration space, if it has one.
    pub(super) config: Vec<u8>,
}

/// Asks a back end of a kind what it is.
pub(super) fn ask(front_end: &mut FrontEnd, kind: RemoteKind) -> Result<Offer, FrontEndError> {
    let features = front_end.features()?;
    let queues = front_end.queue_count()?;
    let length = match kind {
        RemoteKind::Blk => BLK_CONFIG,
        RemoteKind::Net => NET_CONFIG,
        RemoteKind::Fs => FS_CONFIG,
        RemoteKind::Vsock => VSOCK_CONFIG,
        RemoteKind::Rng => 0,
    };
    let config = if front_end.has_config() && length > 0 {
        match front_end.config(length) {
            // It has none, or a shorter one: whoever needs it says so.
            Err(FrontEndError::Refused(_)) => Vec::new(),
            config => config?,
        }
    } else {
        Vec::new()
    };
    Ok(Offer { features, queues, config })
}

/// The device that comes of it.
pub(super) fn of(options: &RemoteOptions, offer: Offer) -> Result<DeviceProfile, RemoteError> {
    let unfit = |problem| RemoteError::Unfit { socket: options.socket.clone(), problem };
    let Offer { features, queues, mut config } = offer;
    if features & VERSION_1 == 0 {
        return Err(unfit("is one from before virtio 1.0"));
    }
    let mut features = features & (RING_FEATURES | DEVICE_FEATURES);
    // Those beside the queues for requests, and those together.
    let (beside, least) = match options.kind {
        RemoteKind::Blk | RemoteKind::Rng => (0, 1),
        RemoteKind::Net => (0, 2),
        RemoteKind::Fs => (1, 2),
        RemoteKind::Vsock => (0, 3),
    };
    // Whoever cannot tell says one.
    let offered = u16::try_from(queues).unwrap_or(u16::MAX).max(least);
    let requests = options.queues.clamp(1, (offered - beside).max(1));
    let (device_type, count) = match options.kind {
        RemoteKind::Blk => {
            features &= !BLK_CONFIG_WCE;
            if config.len() < 8 {
                return Err(unfit("does not say how large its disk is"));
            }
            config.resize(BLK_CONFIG as usize, 0);
            config[BLK_NUM_QUEUES..][..2].copy_from_slice(&requests.to_le_bytes());
            (2, requests)
        }
        RemoteKind::Net => {
            features &= !NET_CONTROLLED;
            let has_mac = features & NET_MAC != 0 && config.len() >= 6 && options.mac.is_none();
            if config.len() < NET_CONFIG as usize {
                features &= !(NET_STATUS | NET_MTU);
            }
            config.resize(NET_CONFIG as usize, 0);
            if !has_mac {
                let mac = options.mac.map_or_else(MacAddress::random, Ok);
                config[..6].copy_from_slice(&mac.map_err(RemoteError::Mac)?.0);
                features |= ours(options.kind);
            }
            (1, 2)
        }
        RemoteKind::Fs => {
            config.resize(FS_CONFIG as usize, 0);
            if let Some(tag) = &options.tag {
                config[..FS_TAG].fill(0);
                let length = tag.len().min(FS_TAG);
                config[..length].copy_from_slice(&tag.as_bytes()[..length]);
            }
            if config[0] == 0 {
                return Err(unfit("does not say what its files are mounted by: give a tag"));
            }
            config[FS_TAG..].copy_from_slice(&u32::from(requests).to_le_bytes());
            (26, beside + requests)
        }
        RemoteKind::Vsock => {
            if config.len() < VSOCK_CONFIG as usize {
                return Err(unfit("does not say which address the guest has"));
            }
            config.truncate(VSOCK_CONFIG as usize);
            (19, 3)
        }
        RemoteKind::Rng => {
            config.clear();
            (4, 1)
        }
    };
    let mut queue_sizes = vec![queue_size(options.kind); count.into()];
    if let (RemoteKind::Vsock, Some(events)) = (options.kind, queue_sizes.last_mut()) {
        *events = EVENT_QUEUE_SIZE;
    }
    Ok(DeviceProfile {
        device_type,
        features,
        queue_sizes,
        config,
        config_writes: ConfigWrites::Ignored,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(kind: RemoteKind) -> RemoteOptions {
        RemoteOptions { kind, socket: "s".into(), queues: 4, tag: None, mac: None }
    }

    fn offer(features: u64, queues: u64, config: &[u8]) -> Offer {
        Offer { features, queues, config: config.to_vec() }
    }

    #[test]
    fn a_disk_has_as_many_queues_as_both_sides_have() {
        let disk = |queues| of(&options(RemoteKind::Blk), offer(!0, queues, &[1; 60])).unwrap();
        assert_eq!(disk(2).queue_sizes, [128; 2]);
        assert_eq!(disk(u64::MAX).queue_sizes.len(), 4);
        assert_eq!(disk(0).queue_sizes.len(), 1);
        assert_eq!(disk(3).config[BLK_NUM_QUEUES..][..2], 3_u16.to_le_bytes());
        assert_eq!(disk(3).features, (RING_FEATURES | DEVICE_FEATURES) & !BLK_CONFIG_WCE);
    }

    #[test]
    fn a_network_without_a_space_of_its_own_gets_an_address_and_nothing_else() {
        let net = of(&options(RemoteKind::Net), offer(!0, 2, &[])).unwrap();
        assert_eq!(net.features & (NET_STATUS | NET_MTU | NET_CONTROLLED), 0);
        assert_ne!(net.features & NET_MAC, 0);
        assert_eq!(net.config[0] & 3, 2, "locally administered, and of one interface");
        let mac = MacAddress([2, 3, 4, 5, 6, 7]);
        let wanted = RemoteOptions { mac: Some(mac), ..options(RemoteKind::Net) };
        assert_eq!(of(&wanted, offer(!0, 2, &[9; 12])).unwrap().config[..6], mac.0);
        assert_eq!(of(&options(RemoteKind::Net), offer(!0, 2, &[8; 12])).unwrap().config, [8; 12]);
    }

    #[test]
    fn what_a_driver_is_offered_is_the_back_ends_or_ours() {
        let kinds =
            [RemoteKind::Blk, RemoteKind::Net, RemoteKind::Fs, RemoteKind::Vsock, RemoteKind::Rng];
        for kind in kinds {
            let options = RemoteOptions { tag: Some("t".into()), ..options(kind) };
            let profile = of(&options, offer(VERSION_1, 3, &[1; 60])).unwrap();
            assert_eq!(profile.features, VERSION_1 | ours(kind), "{kind:?}");
        }
    }

    #[test]
    fn files_need_a_tag_from_somebody() {
        let without = of(&options(RemoteKind::Fs), offer(!0, 9, &[]));
        assert!(matches!(without, Err(RemoteError::Unfit { .. })), "{without:?}");
        let tagged = RemoteOptions { tag: Some("src".into()), ..options(RemoteKind::Fs) };
        let profile = of(&tagged, offer(!0, 9, &[b'x'; 40])).unwrap();
        assert_eq!((&profile.config[..4], profile.queue_sizes.len()), (&b"src\0"[..], 5));
        assert_eq!(profile.config[FS_TAG..], 4_u32.to_le_bytes());
    }

    #[test]
    fn what_says_too_little_is_refused() {
        for (kind, features, config) in [
            (RemoteKind::Blk, !0, &[0; 7][..]),
            (RemoteKind::Vsock, !0, &[0; 7]),
            (RemoteKind::Rng, !VERSION_1, &[]),
        ] {
            let refused = of(&options(kind), offer(features, 1, config));
            assert!(matches!(refused, Err(RemoteError::Unfit { .. })), "{kind:?}: {refused:?}");
        }
    }
}
