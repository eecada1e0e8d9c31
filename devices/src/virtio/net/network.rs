//! What the queues of a network share.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use executor::Fd;
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::mac::MacAddress;
use super::offload::Offloads;
use super::protocol::STATUS_LINK_UP;
use super::tap::{self, Kind};
use super::tun;
use crate::log_limit::LogLimit;
use crate::rate_limit::RateLimiter;
use crate::virtio::worker::{Changes, Patience};

/// Whether the cable is plugged in, as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum LinkState {
    /// It is.
    #[default]
    Up,
    /// It is not: frames are dropped in both directions.
    Down,
}

impl LinkState {
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Up => STATUS_LINK_UP,
            Self::Down => 0,
        }
    }
}

/// What a network has done, in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Frames that went through.
    pub frames: u64,
    /// Their bytes, without virtio headers.
    pub bytes: u64,
    /// Frames that were dropped: the link was down, a filter, a wrong length or header.
    pub dropped: u64,
    /// Frames that the host's kernel refused.
    pub errors: u64,
}

/// What a network has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetStatistics {
    /// To the guest.
    pub received: Traffic,
    /// From the guest.
    pub transmitted: Traffic,
}

/// Counts one direction.
#[derive(Debug, Default)]
pub(super) struct Counters {
    traffic: Cell<Traffic>,
}

impl Counters {
    pub(super) fn get(&self) -> Traffic {
        self.traffic.get()
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut Traffic)) {
        let mut traffic = self.traffic.get();
        add(&mut traffic);
        self.traffic.set(traffic);
    }
}

/// A tap and what the driver, and whoever runs the machine, made of it.
#[derive(Debug)]
pub(super) struct Network {
    /// One for each queue pair.
    pub(super) taps: Vec<Fd>,
    pub(super) kind: Kind,
    pub(super) mtu: u16,
    pub(super) patience: Patience,
    /// How long a driver may take to give receive buffers back.
    pub(super) refill: Duration,
    /// The address that the device was made with.
    pub(super) original_mac: MacAddress,
    pub(super) mac: Cell<MacAddress>,
    pub(super) link: Cell<LinkState>,
    pub(super) filter: RefCell<Filter>,
    /// What was negotiated.
    pub(super) negotiated: Cell<Offloads>,
    /// What the driver takes now.
    pub(super) offloads: Cell<Offloads>,
    /// What the driver chose by command; none means all that it negotiated.
    pub(super) chosen_offloads: Cell<Option<Offloads>>,
    pub(super) active_pairs: Cell<u16>,
    pub(super) receive_limit: RefCell<RateLimiter>,
    pub(super) transmit_limit: RefCell<RateLimiter>,
    pub(super) received: Counters,
    pub(super) transmitted: Counters,
    pub(super) changes: Rc<Changes>,
    pub(super) complaints: LogLimit,
}

impl Network {
    pub(super) fn pairs(&self) -> u16 {
        self.taps.len() as u16
    }

    pub(super) fn config(&self) -> Vec<u8> {
        let status = self.link.get().status();
        super::protocol::config(self.mac.get(), status, self.pairs(), self.mtu)
    }

    pub(super) fn statistics(&self) -> NetStatistics {
        NetStatistics { received: self.received.get(), transmitted: self.transmitted.get() }
    }

    /// Whatever the driver set is as at the beginning.
    pub(super) fn reset(&self) {
        self.mac.set(self.original_mac);
        self.filter.take();
        self.chosen_offloads.set(None);
        self.active_pairs.set(1);
        self.negotiated.set(Offloads::empty());
        self.offloads.set(Offloads::empty());
    }

    /// Let frames through the queues that the driver uses, and no others.
    pub(super) fn apply_pairs(&self) -> io::Result<()> {
        if self.kind == Kind::Tap && self.pairs() > 1 {
            tap::activate_queues(&self.taps, self.active_pairs.get().into())?;
        }
        self.changes.notify();
        Ok(())
    }

    /// Tell the tap what the driver takes.
    pub(super) fn apply_offloads(&self) -> io::Result<()> {
        let negotiated = self.negotiated.get();
        let offloads = self.chosen_offloads.get().unwrap_or(negotiated) & negotiated;
        let offloads = offloads.consistent();
        if self.kind == Kind::Tap {
            tun::set_offloads(&self.taps[0], offloads)?;
        }
        self.offloads.set(offloads);
        Ok(())
    }
}
