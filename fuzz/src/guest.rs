//! A guest that does with a device what an input says.
//!
//! ```text
//!   input ──► Script ──► chains, kicks, resets, pauses, nonsense in the rings ──► back end
//!                   └──► what happens on the other side of the device
//! ```
//!
//! After each step the back end has some turns; at the end it has to pause, reset and go in time.

use std::os::fd::OwnedFd;
use std::time::Duration;

use devices::memory::{GuestAddress, GuestMemory};
use devices::rate_limit::{RateLimit, RateLimits};
use devices::virtio::backend::{
    BackendContext, BackendEvent, BackendRequest, DeviceProfile, RingLayout,
};
use devices::virtio::console::WindowSize;
use devices::virtio::control::{Change, ControlRequest, LimitedTraffic};
use devices::virtio::net::LinkState;
use devices::virtio::parts::Parts;
use devices::virtio::queue::driver::{Buffer, DriverQueue, Kick};
use devices::virtio::queue::{FEATURE_RING_PACKED, InflightRegion, QueueLayout, RingFeatures};
use executor::sim::{EventId, Faults, Sim, Slice};
use ipc::Reply;
use sim::actor::Actor;
use trace::Ring;

use crate::script::Script;

/// Memory of the guest.
pub(crate) const MEMORY_BYTES: u64 = 1 << 20;
/// Rings take the first quarter.
const RINGS_END: u64 = MEMORY_BYTES / 4;
/// Room for indirect tables.
const TABLES: u64 = RINGS_END;
/// What buffers hold, place after place.
const PLACES: u64 = MEMORY_BYTES / 2;
const PLACE_BYTES: u64 = 0x1000;
/// Steps of one input.
const MOST_STEPS: usize = 64;
/// Slices of time that a back end has after each step.
const SLICES: usize = 12;
/// Time that passes by itself: operations end, connections do not expire.
const SHORT: Duration = Duration::from_millis(20);
/// Far more than any answer takes: a hang becomes a failure.
const PATIENT_SLICES: usize = 100_000;
/// Descriptors of a queue: few, so that rings wrap.
const QUEUE_SIZE: u16 = 8;
const TRACE_BYTES: u64 = 128 << 10;
const VERSION_1: u64 = 1 << 32;
/// Stands at the end of each page of rings.
const GUARD: u64 = 0x6775_6172_6420_6f66;

/// What the device has on its other side.
pub(crate) trait Outside {
    /// Something happens there.
    fn happen(&mut self, script: &mut Script<'_>);
}

/// Nothing happens.
impl Outside for () {
    fn happen(&mut self, _: &mut Script<'_>) {}
}

/// Runs a device through what the input says.
pub(crate) fn run<P: Parts + 'static>(input: &[u8], parts: P, mut outside: impl Outside) {
    let mut script = Script::new(input);
    let mut guest = Guest::start(&mut script, parts);
    guest.activate(&mut script);
    for _ in 0..MOST_STEPS {
        if script.is_over() {
            break;
        }
        guest.step(&mut script, &mut outside);
        guest.settle(&mut script);
    }
    guest.finish();
}

/// One queue.
struct Port {
    driver: DriverQueue,
    kick: (OwnedFd, EventId),
    call: (OwnedFd, EventId),
    /// The driver wrote nonsense or gave the rings away: what comes back means nothing until a reset.
    spoiled: bool,
}

struct Guest<P> {
    sim: Sim,
    parts: P,
    memory: GuestMemory,
    inflight: OwnedFd,
    /// Half of the devices write down what they do.
    trace: Option<Ring>,
    profile: DeviceProfile,
    features: u64,
    ports: Vec<Port>,
    actor: Actor,
    /// Queues that the driver uses, by their numbers.
    used: Vec<usize>,
    next_place: u64,
}

impl<P: Parts + 'static> Guest<P> {
    fn start(script: &mut Script<'_>, parts: P) -> Self {
        let seed = script.byte();
        let sim = Sim::new(seed.into(), Faults::NONE);
        let memory = GuestMemory::sparse(MEMORY_BYTES).expect("memory");
        let profile = parts.profile();
        // One in four does without some features.
        let without = if script.byte() & 3 == 3 { script.long() } else { 0 };
        let features = (profile.features | VERSION_1) & !without | VERSION_1;
        let packed = script.byte() & 1 == 1 && profile.features & FEATURE_RING_PACKED != 0;
        let features =
            if packed { features | FEATURE_RING_PACKED } else { features & !FEATURE_RING_PACKED };
        let layout = if packed { RingLayout::Packed } else { RingLayout::Split };
        let make = |index| Port {
            driver: rings(&memory, index, layout, features),
            kick: sim.event().expect("an eventfd"),
            call: sim.event().expect("an eventfd"),
            spoiled: false,
        };
        let queues = 0..profile.queue_sizes.len();
        let all_ports = queues.map(make).collect();
        let (queues, size) = profile.inflight_size();
        let inflight = InflightRegion::create(queues, size).expect("memory for a record");
        let inflight = inflight.file().try_clone_to_owned().expect("a descriptor");
        let trace = (seed & 1 == 1).then(|| Ring::create(TRACE_BYTES).expect("memory for a trace"));
        let actor = start(&sim, &parts, &memory, &inflight, trace.as_ref());
        let (used, next_place) = (Vec::new(), 0);
        Self {
            sim,
            parts,
            memory,
            inflight,
            trace,
            profile,
            features,
            ports: all_ports,
            actor,
            used,
            next_place,
        }
    }

    fn step(&mut self, script: &mut Script<'_>, outside: &mut impl Outside) {
        match script.byte() % 16 {
            0..=6 => self.send(script),
            7 => self.die(),
            8 => self.spoil(script),
            9 => self.reset(script),
            10 => self.pause(),
            11 => self.write_config(script),
            12 => self.write_anywhere(script),
            13 => self.control(script),
            _ => outside.happen(script),
        }
    }

    /// A chain of buffers, most of them such as a request may have.
    fn send(&mut self, script: &mut Script<'_>) {
        let index = usize::from(script.byte()) % self.ports.len();
        let manner = script.byte();
        let mut buffers = Vec::new();
        for _ in 0..=manner % 4 {
            buffers.push(self.buffer(script));
        }
        // Readable before writable, mostly.
        if manner & 0x10 == 0 {
            buffers.sort_by_key(|buffer| matches!(buffer, Buffer::Writable { .. }));
        }
        let table = TABLES + u64::from(manner >> 4) * 0x100;
        let port = &mut self.ports[index];
        let indirect = self.features & devices::virtio::queue::FEATURE_INDIRECT_DESC != 0;
        let added = if manner & 0x20 != 0 && indirect {
            port.driver.add_indirect(table, &buffers)
        } else {
            port.driver.add(&buffers)
        };
        if added.is_some() && manner & 0x40 == 0 && port.driver.publish() == Kick::Wanted {
            self.sim.signal(port.kick.1);
        }
    }

    fn buffer(&mut self, script: &mut Script<'_>) -> Buffer {
        let kind = script.byte();
        let address = match kind >> 5 {
            0 => script.long(),
            1 => MEMORY_BYTES - u64::from(script.byte()),
            _ => {
                let place = self.next_place % ((MEMORY_BYTES - PLACES) / PLACE_BYTES);
                self.next_place += 1;
                PLACES + place * PLACE_BYTES
            }
        };
        let length = match (kind >> 1) & 7 {
            0 => script.word(),
            1 => u32::from(script.short()),
            2 => 4096,
            3 => 512,
            _ => u32::from(script.byte()),
        };
        if address < PLACES {
            // It may lie in a ring.
            self.spoil_all();
        }
        if kind & 1 == 1 {
            return Buffer::Writable { address, length };
        }
        let data = script.bytes(length.min(512) as usize);
        // Buffers outside of memory hold nothing.
        let _ = self.memory.write_slice(GuestAddress(address), data);
        Buffer::Readable { address, length }
    }

    /// Bytes into the rings.
    fn spoil(&mut self, script: &mut Script<'_>) {
        let index = usize::from(script.byte()) % self.ports.len();
        let port = &mut self.ports[index];
        let QueueLayout { descriptor_table, available_ring, used_ring, .. } = port.driver.layout();
        let ring = script.choose(&[descriptor_table, available_ring, used_ring]);
        let at = ring + u64::from(script.byte());
        let count = usize::from(script.byte() % 33);
        port.spoiled = true;
        self.memory
            .write_slice(GuestAddress(at), script.bytes(count))
            .expect("rings are in memory");
        self.sim.signal(port.kick.1);
    }

    /// Bytes into what requests in flight consist of.
    fn write_anywhere(&mut self, script: &mut Script<'_>) {
        let at = TABLES + u64::from(script.word()) % (MEMORY_BYTES - TABLES - 64);
        if at < PLACES {
            // A table may say that buffers lie in a ring.
            self.spoil_all();
        }
        let count = usize::from(script.byte() % 64);
        self.memory.write_slice(GuestAddress(at), script.bytes(count)).expect("inside of memory");
    }

    /// What comes back means nothing until a reset.
    fn spoil_all(&mut self) {
        self.ports.iter_mut().for_each(|port| port.spoiled = true);
    }

    fn reset(&mut self, script: &mut Script<'_>) {
        self.call(|reply| BackendRequest::Reset { reply });
        let layout = self.ports[0].driver.layout().format;
        for (index, port) in self.ports.iter_mut().enumerate() {
            port.driver = rings(&self.memory, index, layout, self.features);
            port.spoiled = false;
        }
        self.activate(script);
    }

    fn activate(&mut self, script: &mut Script<'_>) {
        let left_out = if script.byte() & 7 == 7 { script.byte() } else { 0 };
        let used = |index: &usize| *index >= 8 || left_out >> index & 1 == 0;
        self.used = (0..self.ports.len()).filter(used).collect();
        // A driver that enables more queues than the device has uses, with these features, does without the last.
        while !self.used.is_empty() && self.activate_again().is_err() {
            self.used.pop();
        }
    }

    /// The same queues as before: one that is refused starts from the beginning the next time.
    fn activate_again(&mut self) -> Result<(), String> {
        if self.used.is_empty() {
            return Ok(());
        }
        let setup = |index: &usize| {
            let port = &self.ports[*index];
            let clone = |file: &OwnedFd| file.try_clone().expect("a descriptor");
            let (kick, call) = (clone(&port.kick.0), clone(&port.call.0));
            port.driver.layout().setup(*index as u16, kick, call)
        };
        let (features, queues) = (self.features, self.used.iter().map(setup).collect());
        self.call(move |reply| BackendRequest::Activate { features, queues, reply })
    }

    /// The back end dies on the spot, and a successor goes on.
    fn die(&mut self) {
        let successor =
            start(&self.sim, &self.parts, &self.memory, &self.inflight, self.trace.as_ref());
        self.sim.kill(std::mem::replace(&mut self.actor, successor).executor);
        if let Err(reason) = self.activate_again() {
            let is_spoiled = self.used.iter().any(|index| self.ports[*index].spoiled);
            assert!(is_spoiled, "a successor refuses what its predecessor served: {reason}");
            self.spoil_all();
        }
    }

    fn pause(&mut self) {
        self.call(|reply| BackendRequest::Pause { reply });
        self.call(|reply| BackendRequest::Resume { reply });
    }

    fn write_config(&mut self, script: &mut Script<'_>) {
        let offset = u32::from(script.byte());
        let count = usize::from(script.byte() % 9);
        let data = script.bytes(count).to_vec();
        self.call(move |reply| BackendRequest::WriteConfig { offset, data, reply });
        let read = move |reply| BackendRequest::ReadConfig { offset, length: 8, reply };
        let config: Vec<u8> = self.call(read);
        assert!(config.len() <= self.profile.config.len());
    }

    /// What an operator asks for.
    fn control(&mut self, script: &mut Script<'_>) {
        let few = RateLimit { per_second: 100, burst: 1000 };
        let limits = RateLimits { bytes: Some(few), operations: Some(few) };
        let window = WindowSize { columns: 80, rows: 25 };
        let change = match script.byte() % 16 {
            1 => Change::RateLimits { traffic: LimitedTraffic::Both, limits },
            2 => Change::RateLimits { traffic: LimitedTraffic::Transmit, limits },
            3 => Change::RateLimits { traffic: LimitedTraffic::Receive, limits },
            4 => Change::RateLimits { traffic: LimitedTraffic::Both, limits: RateLimits::NONE },
            5 => Change::Link(LinkState::Down),
            6 => Change::Link(LinkState::Up),
            7 => Change::Size { bytes: u64::from(script.byte()) * 512 },
            8 => Change::Window(window),
            9 => Change::Balloon { bytes: u64::from(script.byte()) * 2048 },
            _ => return self.statistics(),
        };
        // A refusal is an answer.
        let (reply, _) = Reply::pair();
        self.actor.control(ControlRequest::Change { change, reply });
    }

    fn statistics(&mut self) {
        // A guest that does not say how it is makes the question last: nobody waits.
        let (reply, _) = Reply::pair();
        self.actor.control(ControlRequest::Statistics { reply });
        // Here time leaps.
        for _ in 0..SLICES {
            self.go_on();
        }
    }

    fn call<R: ipc::Message>(&mut self, make: impl FnOnce(Reply<R>) -> BackendRequest) -> R {
        let mut answer = self.actor.ask(make);
        for _ in 0..PATIENT_SLICES {
            if let Some(answer) = answer.try_take() {
                return answer.expect("a back end answers its transport");
            }
            self.go_on();
        }
        panic!("a back end does not answer its transport");
    }

    /// A slice of time; false if nothing is left to do.
    fn go_on(&mut self) -> bool {
        self.go_on_within(Duration::MAX)
    }

    /// The same; false if nothing is left to do so soon.
    fn go_on_within(&mut self, time: Duration) -> bool {
        match self.sim.run(&mut self.actor.executor) {
            Slice::Busy => true,
            Slice::Waiting => self.sim.advance_within(time),
            Slice::Crashed => unreachable!("deaths come in between"),
        }
    }

    /// Lets the back end work, and takes back what it gives back.
    fn settle(&mut self, script: &mut Script<'_>) {
        for _ in 0..SLICES {
            let more = self.go_on_within(SHORT);
            for (index, port) in self.ports.iter_mut().enumerate() {
                port.spoiled |= is_given_away(&self.memory, index);
            }
            for port in self.ports.iter_mut().filter(|port| !port.spoiled) {
                while port.driver.take_used().is_some() {}
            }
            if !more {
                break;
            }
        }
        let mut broken = false;
        while let Ok(event) = self.actor.events.try_recv() {
            broken |= matches!(event, BackendEvent::NeedsReset { .. });
        }
        if broken {
            self.reset(script);
        }
    }

    /// Whatever happened, the device ends in order.
    fn finish(mut self) {
        self.call(|reply| BackendRequest::Pause { reply });
        self.call(|reply| BackendRequest::Reset { reply });
        self.actor.close();
        for _ in 0..PATIENT_SLICES {
            if self.actor.has_ended() {
                return self.sim.kill(self.actor.executor);
            }
            self.go_on();
        }
        panic!("a back end does not end");
    }
}

/// A back end with the record of what is in flight, which outlives it.
fn start<P: Parts + 'static>(
    sim: &Sim,
    parts: &P,
    memory: &GuestMemory,
    inflight: &OwnedFd,
    trace: Option<&Ring>,
) -> Actor {
    let parts = parts.try_clone().expect("descriptors");
    let (queues, size) = parts.profile().inflight_size();
    let inflight = inflight.try_clone().expect("a descriptor");
    let inflight = InflightRegion::attach(inflight, queues, size).expect("its record");
    let trace = trace.cloned();
    Actor::start(sim, memory, |context| {
        Box::pin(parts.run(Some(inflight), BackendContext { trace, ..context }))
    })
}

fn rings(memory: &GuestMemory, index: usize, layout: RingLayout, features: u64) -> DriverQueue {
    let base = ring_base(index);
    assert!(base + DriverQueue::ring_bytes(QUEUE_SIZE) <= RINGS_END, "room for all rings");
    memory.write_obj(guard(index), &GUARD).expect("inside of memory");
    let features = RingFeatures::from_bits(features);
    DriverQueue::new(memory, base, QUEUE_SIZE, layout, features)
}

/// Rings have a page each.
fn ring_base(index: usize) -> u64 {
    0x1000 + index as u64 * DriverQueue::ring_bytes(QUEUE_SIZE)
}

/// A word in the page of a queue's rings that nobody uses.
fn guard(index: usize) -> GuestAddress {
    GuestAddress(ring_base(index + 1) - size_of_val(&GUARD) as u64)
}

/// Whether the page of a queue's rings is another: a driver may inflate a balloon with it.
fn is_given_away(memory: &GuestMemory, index: usize) -> bool {
    memory.read_obj::<u64>(guard(index)).expect("inside of memory") != GUARD
}
