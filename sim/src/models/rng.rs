//! An entropy source.
//!
//! Each buffer comes back with some bytes from its beginning and nothing behind them. No bytes are
//! given twice.

use devices::rate_limit::{RateLimit, RateLimits};
use devices::virtio::backend::{BackendContext, DeviceProfile};
use devices::virtio::control::{Change, ControlRequest, LimitedTraffic};
use devices::virtio::parts::Parts;
use devices::virtio::queue::InflightRegion;
use devices::virtio::queue::driver::{Buffer, Used};
use devices::virtio::rng::RngParts;
use executor::sim::Numbers;
use ipc::Reply;

use super::crimes;
use super::places::Places;
use crate::machine::{CANARY, FREE, Machine};
use crate::model::{Crime, Model, Running};

const QUEUE: usize = 0;
/// Room for more than the device gives for one buffer.
const PLACE: u64 = 0x3000;
const PLACES: usize = 20;
const TABLE: u64 = PLACE - 0x80;
/// Most bytes of a piece of a buffer.
const PIECE: u64 = 2600;
/// Bytes that never happen to be the same twice.
const TELLING: usize = 16;

/// The pieces of a buffer.
type Pieces = Vec<(u64, u32)>;

/// See the module.
pub(super) struct Rng {
    parts: RngParts,
    places: Places<Pieces>,
    /// The last bytes of each kind of end that were given.
    last: Vec<u8>,
}

impl Rng {
    pub(super) fn new() -> Self {
        let parts = RngParts::new(RateLimits::NONE);
        Self { parts, places: Places::new(FREE, PLACE, PLACES), last: Vec::new() }
    }

    fn ask(&mut self, machine: &mut Machine, random: &mut Numbers) -> Option<()> {
        let place = self.places.free()?;
        let (mut at, mut pieces) = (place, Pieces::new());
        for _ in 0..random.within(1..5) {
            let most = *random.pick(&[20, 200, PIECE]);
            let length = random.within(1..most);
            pieces.push((at, length as u32));
            at += length + random.below(40);
        }
        let buffer = |&(address, length): &(u64, u32)| Buffer::Writable { address, length };
        let buffers: Vec<Buffer> = pieces.iter().map(buffer).collect();
        let head = machine.add(QUEUE, &buffers, Some(place + TABLE));
        self.places.fill(machine, place, QUEUE, head, pieces)
    }
}

impl Model for Rng {
    fn profile(&self) -> DeviceProfile {
        self.parts.profile()
    }

    fn start(&mut self, region: InflightRegion, context: BackendContext) -> Running {
        let parts = self.parts.try_clone().expect("limits alone");
        Box::pin(parts.run(Some(region), context))
    }

    fn act(&mut self, machine: &mut Machine, random: &mut Numbers) {
        let _ = self.ask(machine, random);
    }

    fn misbehave(&mut self, machine: &mut Machine, random: &mut Numbers) -> Option<Crime> {
        crimes::break_rings(machine, random, QUEUE, self.places.end())
    }

    fn used(&mut self, machine: &mut Machine, queue: usize, used: Used) {
        let (place, mut pieces) = self.places.take(queue, used.head);
        let room: u32 = pieces.iter().map(|(_, length)| length).sum();
        assert!((1..=room).contains(&used.written), "{} of {room} bytes", used.written);
        let mut left = used.written;
        for (_, length) in &mut pieces {
            *length = left.min(*length);
            left -= *length;
        }
        let read = |&(address, length): &(u64, u32)| machine.read(address, length as usize);
        let bytes: Vec<u8> = pieces.iter().flat_map(read).collect();
        if let Some(end) = bytes.last_chunk::<TELLING>() {
            assert_ne!(end, &[CANARY; TELLING], "fewer bytes were given than said");
            assert_ne!(end[..], self.last, "the same bytes again");
            self.last = end.to_vec();
        }
        pieces.push((place + TABLE, 0x80));
        self.places.left(machine, place, &pieces, "what was given of a buffer");
    }

    fn control(&mut self, random: &mut Numbers) -> Option<ControlRequest> {
        // Fast enough that nobody takes it for dead.
        let mut rate = |most: u64| {
            let limit = RateLimit::per_second(random.within(most / 10..most));
            random.once_in(2).then_some(limit)
        };
        let limits = RateLimits { bytes: rate(4 << 20), operations: rate(2000) };
        let change = Change::RateLimits { traffic: LimitedTraffic::Both, limits };
        self.parts.remember(&change);
        let (reply, _) = Reply::pair();
        Some(ControlRequest::Change { change, reply })
    }

    fn reset(&mut self, machine: &mut Machine) {
        let end = self.places.end();
        self.places.clear(machine);
        machine.wipe(end, crimes::BYTES);
    }

    fn left_behind(&self) -> Option<String> {
        let left = self.places.of(QUEUE).count();
        (left > 0).then(|| format!("{left} buffers"))
    }

    fn finish(&mut self, machine: &mut Machine) {
        machine.assert_all_untouched();
    }
}
