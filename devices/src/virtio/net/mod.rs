//! The network back end (virtio 1.3 section 5.1): an actor that moves frames between guest memory
//! and a tap.
//!
//! ```text
//!   transmit:  kick ─► avail ring ─► one write of each frame, gathered from guest memory ─┐
//!                                                                                         │ one visit
//!   receive:   interrupt ◄─ used ring ◄─ check ◄─ reads under way, into guest memory ◄────┘ to the
//!                                                                                           kernel
//!   control:   command ─► filter, address, queue pairs, offloads
//!   ControlRequest ─► link, rate limits, statistics
//! ```
//!
//! One task per queue. No frame is copied here: the kernel moves it between the tap and the driver's
//! buffers, many frames in one visit. Offloads are the tap's: whatever the driver leaves to the
//! device, or takes over from it, goes through as the header of the frame says.
//!
//! # After a crash
//!
//! Receive buffers that were taken are used for the next frames; frames to transmit may be sent
//! twice. What the driver set by command is in a [`SettingsFile`], and holds for as long as its control
//! queue goes on ([`ActiveQueue::goes_on`]).

mod control;
mod error;
mod failure;
mod filter;
mod header;
mod mac;
mod memory;
mod network;
mod offload;
mod parts;
mod protocol;
mod receive;
mod tap;
mod transmit;
mod tun;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use executor::Fd;
use ipc::Sender;
use serde::{Deserialize, Serialize};

pub use error::NetError;
pub use mac::{MacAddress, MacError};
pub use memory::SettingsFile;
pub use network::{LinkState, NetStatistics, Traffic};
pub use offload::Offloads;
pub use parts::NetParts;
pub use tap::{DEFAULT_MTU, MAX_QUEUE_PAIRS, Tap, TapOptions, TapSource};

use self::filter::Filter;
use self::memory::DriverSettings;
use self::network::{Counters, Network};
use self::protocol::{
    FEATURE_CTRL_GUEST_OFFLOADS, FEATURE_CTRL_MAC_ADDR, FEATURE_CTRL_RX, FEATURE_CTRL_RX_EXTRA,
    FEATURE_CTRL_VQ, FEATURE_MAC, FEATURE_MQ, FEATURE_MRG_RXBUF, FEATURE_MTU, FEATURE_STATUS,
};
use self::receive::Buffering;
use super::backend::{BackendContext, BackendEvent, ConfigWrites, DeviceProfile};
use super::control::{Change, Effect, LimitedTraffic, Statistics};
use super::queue::{InflightRegion, RING_FEATURES};
use super::worker::{self, ActiveQueue, Device, Patience, Work};
use crate::log_limit::LogLimit;
use crate::rate_limit::{RateLimiter, RateLimits};

/// Queue size unless asked otherwise: with buffers of 1.5 KiB, as Linux gives them, room for 23
/// reads of the largest frame at once.
pub const DEFAULT_NET_QUEUE_SIZE: u16 = 1024;

/// The offset of reads and writes on what has none.
const STREAM: u64 = u64::MAX;

/// What is asked of a network beside its tap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetOptions {
    /// The guest's address.
    pub mac: MacAddress,
    /// Descriptors of a queue, a power of two from 64 to 1024.
    pub queue_size: u16,
    /// The link at the start.
    pub link: LinkState,
    /// Limits of what the guest receives.
    pub receive: RateLimits,
    /// Limits of what the guest sends.
    pub transmit: RateLimits,
}

impl NetOptions {
    /// The defaults: link up, no limits.
    pub fn new(mac: MacAddress) -> Self {
        Self {
            mac,
            queue_size: DEFAULT_NET_QUEUE_SIZE,
            link: LinkState::Up,
            receive: RateLimits::NONE,
            transmit: RateLimits::NONE,
        }
    }

    /// The defaults and a random address.
    pub fn random() -> Result<Self, NetError> {
        let mac = MacAddress::random().map_err(|source| NetError::Random { source })?;
        Ok(Self::new(mac))
    }

    fn check(&self) -> Result<(), NetError> {
        let size = self.queue_size;
        if size.is_power_of_two() && (64..=1024).contains(&size) {
            Ok(())
        } else {
            Err(NetError::QueueSize { size })
        }
    }
}

/// A network that is ready to run.
#[derive(Debug)]
pub struct NetBackend {
    tap: Tap,
    options: NetOptions,
    patience: Patience,
    refill: Duration,
    inflight: Option<InflightRegion>,
    settings: Option<SettingsFile>,
}

impl NetBackend {
    /// Serve `tap`.
    pub fn new(tap: Tap, options: NetOptions) -> Result<Self, NetError> {
        options.check()?;
        Ok(Self {
            tap,
            options,
            patience: Patience::for_this_host(),
            refill: receive::REFILL_PATIENCE,
            inflight: None,
            settings: None,
        })
    }

    /// Record what is in flight there, and take over what it says. The region is for as many queues
    /// as [`NetBackend::profile`] names, of the largest of their sizes.
    #[must_use]
    pub fn with_inflight(mut self, region: InflightRegion) -> Self {
        self.inflight = Some(region);
        self
    }

    /// Keep what the driver sets there, and go by it when queues are taken over.
    #[must_use]
    pub fn with_settings(mut self, settings: SettingsFile) -> Self {
        self.settings = Some(settings);
        self
    }

    /// For how long a transmit queue's task looks for more work before it sleeps.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// How long frames wait for a driver that has given too few buffers for a large one.
    #[must_use]
    pub fn with_refill_patience(mut self, refill: Duration) -> Self {
        self.refill = refill;
        self
    }

    /// What the device looks like to a transport.
    pub fn profile(&self) -> DeviceProfile {
        profile(&self.tap, &self.options)
    }

    /// Serve the transport until it closes its request channel. Needs an executor on this thread.
    pub async fn run(self, context: BackendContext) {
        let Self { tap, options, patience, refill, inflight, settings } = self;
        let network = match network(tap, &options, patience, refill) {
            Ok(network) => Rc::new(network),
            Err(error) => {
                // The transport sees the channel close.
                log::error!("the network back end cannot use its tap: {error}");
                return;
            }
        };
        let events = context.events.clone();
        let notices = Notices { events, settings: settings.map(Rc::new) };
        let device = NetDevice { network, notices };
        worker::serve(device, inflight, context).await;
    }
}

/// What a network of these looks like to a transport.
fn profile(tap: &Tap, options: &NetOptions) -> DeviceProfile {
    let pairs = tap.queue_pairs();
    let mut queue_sizes = vec![options.queue_size; 2 * usize::from(pairs)];
    queue_sizes.push(control::QUEUE_SIZE);
    DeviceProfile {
        device_type: protocol::DEVICE_TYPE,
        features: features(tap),
        queue_sizes,
        config: protocol::config(options.mac, options.link.status(), pairs, tap.mtu()),
        config_writes: ConfigWrites::Ignored,
    }
}

fn features(tap: &Tap) -> u64 {
    let always = FEATURE_MTU
        | FEATURE_MAC
        | FEATURE_MRG_RXBUF
        | FEATURE_STATUS
        | FEATURE_CTRL_VQ
        | FEATURE_CTRL_RX
        | FEATURE_CTRL_RX_EXTRA
        | FEATURE_CTRL_MAC_ADDR
        | RING_FEATURES;
    let multiple = if tap.queue_pairs() > 1 { FEATURE_MQ } else { 0 };
    let offloads = match tap.offloads() {
        none if none.is_empty() => 0,
        some => some.features() | FEATURE_CTRL_GUEST_OFFLOADS,
    };
    always | multiple | offloads
}

fn network(
    tap: Tap,
    options: &NetOptions,
    patience: Patience,
    refill: Duration,
) -> std::io::Result<Network> {
    let (mtu, kind) = (tap.mtu(), tap.kind);
    let taps = tap.queues.into_iter().map(Fd::new).collect::<std::io::Result<_>>()?;
    let now = executor::now();
    Ok(Network {
        taps,
        kind,
        mtu,
        patience,
        refill,
        original_mac: options.mac,
        mac: Cell::new(options.mac),
        link: Cell::new(options.link),
        filter: RefCell::new(Filter::default()),
        negotiated: Cell::default(),
        offloads: Cell::default(),
        chosen_offloads: Cell::default(),
        active_pairs: Cell::new(1),
        receive_limit: RefCell::new(RateLimiter::new(options.receive, now)),
        transmit_limit: RefCell::new(RateLimiter::new(options.transmit, now)),
        received: Counters::default(),
        transmitted: Counters::default(),
        changes: Rc::default(),
        complaints: LogLimit::new(),
    })
}

/// Who has to know when the driver sets something.
#[derive(Debug, Clone)]
struct Notices {
    events: Sender<BackendEvent>,
    settings: Option<Rc<SettingsFile>>,
}

impl Notices {
    /// A command may have changed something.
    fn settings_changed(&self, network: &Network) {
        if let Some(file) = &self.settings
            && let Err(error) = file.store(&network.settings())
        {
            network.complaints.warn(format_args!("network: cannot keep the settings: {error}"));
        }
    }

    /// The transport shows the driver another address.
    fn mac_changed(&self, network: &Network) {
        let event = BackendEvent::ConfigChanged { config: network.config() };
        // If the channel is full the transport shows the old one, which only a driver that starts
        // anew looks at.
        let _ = self.events.try_send(event);
    }
}

struct NetDevice {
    network: Rc<Network>,
    notices: Notices,
}

impl NetDevice {
    /// A driver is there: the same as before, or another that has set nothing yet.
    fn meet_driver(&self, features: u64, queues: &[ActiveQueue]) {
        let pairs = if features & FEATURE_MQ != 0 { self.network.pairs() } else { 1 };
        if features & FEATURE_CTRL_VQ == 0 {
            return self.forget_driver();
        }
        // Front ends may have one queue served after the other: nothing is known before this one comes.
        let control = queues.iter().find(|active| active.index() == 2 * pairs);
        let Some(control) = control else { return };
        if !control.goes_on() {
            return self.forget_driver();
        }
        if let Some(settings) = self.notices.settings.as_ref().and_then(|file| file.load()) {
            self.take_over(&settings);
        }
    }

    /// Whatever a driver set is as at the beginning.
    fn forget_driver(&self) {
        let had = self.network.mac.get();
        self.network.reset();
        if had != self.network.mac.get() {
            self.notices.mac_changed(&self.network);
        }
        if let Some(file) = &self.notices.settings
            && let Err(error) = file.clear()
        {
            log::warn!("network: cannot clear the settings: {error}");
        }
    }

    /// Go by what the driver told a predecessor.
    fn take_over(&self, settings: &DriverSettings) {
        let network = &self.network;
        if let Some(mac) = settings.mac() {
            network.mac.set(mac);
        }
        network.active_pairs.set(settings.pairs().clamp(1, network.pairs()));
        network.chosen_offloads.set(settings.offloads());
        network.filter.replace(settings.filter());
    }
}

impl Device for NetDevice {
    fn start(&mut self, features: u64, queues: Vec<ActiveQueue>) -> Result<Vec<Work>, String> {
        let network = &self.network;
        self.meet_driver(features, &queues);
        network.negotiated.set(Offloads::to_driver(features).consistent());
        let following = network.apply_offloads().and_then(|()| network.apply_pairs());
        following.map_err(|error| format!("the tap does not follow: {error}"))?;
        let pairs = if features & FEATURE_MQ != 0 { network.pairs() } else { 1 };
        let buffering = match features & FEATURE_MRG_RXBUF {
            0 => Buffering::Single,
            _ => Buffering::Mergeable,
        };
        let mut works: Vec<Work> = Vec::new();
        for active in queues {
            let (index, pair) = (active.index(), usize::from(active.index() / 2));
            let network = network.clone();
            works.push(if index < 2 * pairs && index.is_multiple_of(2) {
                Box::pin(receive::serve(network, pair, buffering, active))
            } else if index < 2 * pairs {
                Box::pin(transmit::serve(network, pair, active))
            } else if index == 2 * pairs && features & FEATURE_CTRL_VQ != 0 {
                Box::pin(control::serve(network, features, self.notices.clone(), active))
            } else {
                return Err(format!("queue {index} does not exist with these features"));
            });
        }
        Ok(works)
    }

    fn config(&self) -> Vec<u8> {
        self.network.config()
    }

    fn change(&mut self, change: &Change) -> Result<Effect, String> {
        let network = &self.network;
        match change {
            Change::Size { .. } => return Err("a network has no size".into()),
            Change::Link(link) => {
                let had = network.link.replace(*link);
                return Ok(if had == *link { Effect::Unseen } else { Effect::Config });
            }
            Change::Window(_) => return Err("a network has no window".into()),
            Change::RateLimits { traffic, limits } => {
                let now = executor::now();
                if *traffic != LimitedTraffic::Transmit {
                    network.receive_limit.borrow_mut().change(*limits, now);
                }
                if *traffic != LimitedTraffic::Receive {
                    network.transmit_limit.borrow_mut().change(*limits, now);
                }
                network.changes.notify();
            }
            Change::Balloon { .. } | Change::Share(_) | Change::Unshare { .. } => {
                return Err("a network has no balloon and no directories".into());
            }
        }
        Ok(Effect::Unseen)
    }

    fn statistics(&self) -> Statistics {
        Statistics::Net(self.network.statistics())
    }

    fn reset(&mut self) {
        self.forget_driver();
        // One pair, and frames that need nothing: the tap must not fill queues that nobody reads.
        if let Err(error) = self.network.apply_offloads().and_then(|()| self.network.apply_pairs())
        {
            log::warn!("network: the tap does not follow a reset: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
