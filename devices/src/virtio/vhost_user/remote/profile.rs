//! What a device looks like to the driver: what its back end offers, without what we cannot carry over.

use super::super::front_end::{FrontEnd, FrontEndError};
use super::{RemoteError, RemoteKind, RemoteOptions};
use crate::virtio::backend::{ConfigWrites, DeviceProfile};
use crate::virtio::console::MAX_PORTS;
use crate::virtio::net::MacAddress;

/// Descriptors of each queue. Nobody says how many there may be; all back ends have so many, as QEMU's front end
/// asks for no fewer.
fn queue_size(kind: RemoteKind) -> u16 {
    match kind {
        RemoteKind::Net => 256,
        RemoteKind::Rng | RemoteKind::Console => 64,
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

const CONSOLE_SIZE: u64 = 1 << 0;
const CONSOLE_MULTIPORT: u64 = 1 << 1;
/// `VIRTIO_CONSOLE_F_EMERG_WRITE`: by writes to the configuration space, as above.
const CONSOLE_EMERGENCY_WRITE: u64 = 1 << 2;
/// `cols`, `rows` and `max_nr_ports` (virtio 1.3 section 5.3.4).
const CONSOLE_CONFIG: u32 = 8;
const CONSOLE_PORTS: usize = 4;

/// Features that a driver is offered whatever a back end offers: a network has an address, theirs or ours.
pub(super) fn ours(kind: RemoteKind) -> u64 {
    match kind {
        RemoteKind::Net => NET_MAC,
        RemoteKind::Blk
        | RemoteKind::Fs
        | RemoteKind::Vsock
        | RemoteKind::Rng
        | RemoteKind::Console => 0,
    }
}

/// Whether a driver with these features finds the size of its window in this configuration space.
pub(super) fn has_window(kind: RemoteKind, features: u64, config: &[u8]) -> bool {
    let in_config = features & (CONSOLE_SIZE | CONSOLE_MULTIPORT) == CONSOLE_SIZE;
    kind == RemoteKind::Console
        && in_config
        && config.iter().take(CONSOLE_PORTS).any(|byte| *byte != 0)
}

/// The configuration space of a console whose successor has another window.
pub(super) fn with_window_of(ours: &[u8], successor: &[u8]) -> Vec<u8> {
    [&successor[..CONSOLE_PORTS], &ours[CONSOLE_PORTS..]].concat()
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
        RemoteKind::Console => CONSOLE_CONFIG,
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
        RemoteKind::Net | RemoteKind::Console => (0, 2),
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
        RemoteKind::Console => {
            features &= !CONSOLE_EMERGENCY_WRITE;
            if config.len() < CONSOLE_CONFIG as usize {
                features &= !(CONSOLE_SIZE | CONSOLE_MULTIPORT);
            }
            config.resize(CONSOLE_CONFIG as usize, 0);
            let mut count = 2;
            if features & CONSOLE_MULTIPORT != 0 {
                // Two for each port, and two for messages.
                let known: [u8; 4] =
                    config[CONSOLE_PORTS..].try_into().expect("four bytes are left");
                let most = u32::from(offered / 2).saturating_sub(1).min(MAX_PORTS as u32);
                let ports = u32::from_le_bytes(known).min(most);
                if ports == 0 {
                    return Err(unfit("has messages for its ports, and no port"));
                }
                config[CONSOLE_PORTS..].copy_from_slice(&ports.to_le_bytes());
                count = 2 * ports as u16 + 2;
            }
            (3, count)
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
        let kinds = [
            RemoteKind::Blk,
            RemoteKind::Net,
            RemoteKind::Fs,
            RemoteKind::Vsock,
            RemoteKind::Rng,
            RemoteKind::Console,
        ];
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
    fn a_console_has_queues_for_its_ports_and_for_messages_of_several() {
        let console = |features, queues, config: &[u8]| {
            of(&options(RemoteKind::Console), offer(features, queues, config))
        };
        let lone = console(VERSION_1 | CONSOLE_SIZE, 2, &[80, 0, 25, 0, 1, 0, 0, 0]).unwrap();
        assert_eq!((lone.device_type, lone.queue_sizes), (3, vec![64; 2]));
        assert!(has_window(RemoteKind::Console, lone.features, &lone.config));
        for (ports, queues, found) in [(1, 4, 1_u32), (5, 12, 5), (5, 9, 3), (1000, 1000, 16)] {
            let config = [[0; 4], u32::to_le_bytes(ports)].concat();
            let several = console(!0, queues, &config).unwrap();
            assert_eq!(several.queue_sizes.len(), 2 * found as usize + 2);
            assert_eq!(several.config[CONSOLE_PORTS..], found.to_le_bytes());
            assert_eq!(several.features & CONSOLE_EMERGENCY_WRITE, 0);
            assert!(!has_window(RemoteKind::Console, several.features, &several.config));
        }
        // Without a space of its own it is a lone console of unknown size.
        let silent = console(!0, 4, &[]).unwrap();
        assert_eq!(silent.features & (CONSOLE_SIZE | CONSOLE_MULTIPORT), 0);
        assert_eq!((silent.queue_sizes.len(), silent.config), (2, vec![0; 8]));
        let refused = console(!0, 4, &[0; 8]);
        assert!(matches!(refused, Err(RemoteError::Unfit { .. })), "{refused:?}");
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
