//! The control queue (virtio 1.3 section 5.1.6.5): what the driver sets by command.

use std::rc::Rc;

use super::Notices;
use super::failure::Failure;
use super::filter::{Addresses, MAX_ADDRESSES, Mode, Switch};
use super::mac::MacAddress;
use super::memory::DriverSettings;
use super::network::Network;
use super::offload::Offloads;
use super::protocol::{
    Ack, FEATURE_CTRL_GUEST_OFFLOADS, FEATURE_CTRL_MAC_ADDR, FEATURE_CTRL_RX,
    FEATURE_CTRL_RX_EXTRA, FEATURE_MQ, command,
};
use crate::virtio::queue::{Chain, StatusByte};
use crate::virtio::worker::{ActiveQueue, StopMode};

/// Descriptors of the control queue: drivers send one command at a time.
pub(super) const QUEUE_SIZE: u16 = 64;

/// Longest table of addresses that is read to its end; a longer one is refused.
const LONGEST_TABLE: u32 = 4096;

/// Serve the control queue until it is stopped.
pub(super) async fn serve(
    network: Rc<Network>,
    features: u64,
    notices: Notices,
    mut active: ActiveQueue,
) -> Vec<ActiveQueue> {
    let size = usize::from(active.queue.size());
    let mut chain = Chain::new(active.memory().clone(), size);
    let commands = Commands { network, features, notices };
    if let Err(failure) = commands.serve(&mut active, &mut chain).await {
        active.fail(failure.to_string()).await;
    }
    vec![active]
}

struct Commands {
    network: Rc<Network>,
    features: u64,
    notices: Notices,
}

impl Commands {
    async fn serve(&self, active: &mut ActiveQueue, chain: &mut Chain) -> Result<(), Failure> {
        loop {
            match active.available().await? {
                Some(StopMode::Drain) if active.queue.is_recovering() => {}
                Some(_) => return Ok(()),
                None => {}
            }
            // As many as the queue has: then others run.
            for _ in 0..active.queue.size() {
                if !active.queue.pop(chain)? {
                    break;
                }
                let head = chain.head();
                let status = StatusByte::take(chain).ok_or(Failure::NoAck { head })?;
                let mac = self.network.mac.get();
                let ack = execute(&self.network, self.features, chain).unwrap_or(Ack::Error);
                self.notices.settings_changed(&self.network);
                if mac != self.network.mac.get() {
                    self.notices.mac_changed(&self.network);
                }
                status.write(ack as u8);
                active.queue.push_used(head, 1);
            }
            active.publish();
            executor::yield_now().await;
        }
    }
}

/// Do a command. None if it has another form than the specification says.
pub(super) fn execute(network: &Network, features: u64, chain: &mut Chain) -> Option<Ack> {
    let [class, number] = chain.read_array()?;
    let has = |feature: u64| (features & feature != 0).then_some(());
    match (class, number) {
        command::RX_PROMISC => mode(network, Mode::Promiscuous, chain, has(FEATURE_CTRL_RX)),
        command::RX_ALLMULTI => mode(network, Mode::AllMulticast, chain, has(FEATURE_CTRL_RX)),
        command::RX_ALLUNI => mode(network, Mode::AllUnicast, chain, has(FEATURE_CTRL_RX_EXTRA)),
        command::RX_NOMULTI => mode(network, Mode::NoMulticast, chain, has(FEATURE_CTRL_RX_EXTRA)),
        command::RX_NOUNI => mode(network, Mode::NoUnicast, chain, has(FEATURE_CTRL_RX_EXTRA)),
        command::RX_NOBCAST => mode(network, Mode::NoBroadcast, chain, has(FEATURE_CTRL_RX_EXTRA)),
        command::MAC_TABLE_SET => {
            has(FEATURE_CTRL_RX)?;
            let unicast = addresses(chain)?;
            let multicast = addresses(chain)?;
            finished(chain)?;
            network.filter.borrow_mut().set_tables(unicast, multicast);
            Some(Ack::Ok)
        }
        command::MAC_ADDR_SET => {
            has(FEATURE_CTRL_MAC_ADDR)?;
            let mac = MacAddress(chain.read_array()?);
            finished(chain)?;
            if !mac.is_unicast() {
                return None;
            }
            network.mac.set(mac);
            Some(Ack::Ok)
        }
        command::MQ_VQ_PAIRS_SET => {
            has(FEATURE_MQ)?;
            let pairs = u16::from_le_bytes(chain.read_array()?);
            finished(chain)?;
            if !(1..=network.pairs()).contains(&pairs) {
                return None;
            }
            let before = network.active_pairs.replace(pairs);
            acknowledge(network, network.apply_pairs(), || network.active_pairs.set(before))
        }
        command::GUEST_OFFLOADS_SET => {
            has(FEATURE_CTRL_GUEST_OFFLOADS)?;
            let bits = u64::from_le_bytes(chain.read_array()?);
            finished(chain)?;
            let offloads = Offloads::to_driver(bits);
            let known = bits & !Offloads::all_to_driver() == 0;
            if !known || !network.negotiated.get().contains(offloads) {
                return None;
            }
            let before = network.chosen_offloads.replace(Some(offloads));
            acknowledge(network, network.apply_offloads(), || network.chosen_offloads.set(before))
        }
        _ => None,
    }
}

/// The answer to a command that the tap had to follow.
fn acknowledge(network: &Network, result: std::io::Result<()>, undo: impl FnOnce()) -> Option<Ack> {
    if let Err(error) = result {
        network
            .complaints
            .warn(format_args!("network: the tap does not follow a command: {error}"));
        undo();
        return None;
    }
    Some(Ack::Ok)
}

fn mode(network: &Network, mode: Mode, chain: &mut Chain, allowed: Option<()>) -> Option<Ack> {
    allowed?;
    let switch = match chain.read_array()? {
        [0] => Switch::Off,
        [1] => Switch::On,
        _ => return None,
    };
    finished(chain)?;
    network.filter.borrow_mut().switch(mode, switch);
    Some(Ack::Ok)
}

/// A table of addresses: their number, then each.
fn addresses(chain: &mut Chain) -> Option<Addresses> {
    let count = u32::from_le_bytes(chain.read_array()?);
    if count > LONGEST_TABLE || u64::from(count) * 6 > u64::from(chain.readable_bytes()) {
        return None;
    }
    let mut list = Vec::with_capacity(MAX_ADDRESSES.min(count as usize));
    for _ in 0..count {
        let address = MacAddress(chain.read_array()?);
        if list.len() < MAX_ADDRESSES {
            list.push(address);
        }
    }
    Some(if count as usize > MAX_ADDRESSES { Addresses::All } else { Addresses::Listed(list) })
}

fn finished(chain: &Chain) -> Option<()> {
    (chain.readable_bytes() == 0).then_some(())
}

impl Network {
    /// What the driver set by command.
    pub(super) fn settings(&self) -> DriverSettings {
        DriverSettings::new(
            self.mac.get(),
            self.active_pairs.get(),
            self.chosen_offloads.get(),
            &self.filter.borrow(),
        )
    }
}
