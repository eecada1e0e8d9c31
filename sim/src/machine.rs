//! The guest's hardware: memory, rings, kicks and interrupts.

use std::os::fd::OwnedFd;

use devices::memory::{GuestAddress, GuestMemory};
use devices::virtio::backend::{QueueSetup, QueueState};
use devices::virtio::queue::RingFeatures;
use devices::virtio::queue::driver::{Buffer, DriverQueue, Kick, Used};
use executor::sim::{EventId, Numbers, Sim};

use crate::settings::Settings;

/// Where the rings are; nothing else is below [`FREE`].
const RINGS: u64 = 0x1000;
const RING_BYTES: u64 = 0x1000;
/// Most queues of a device here.
const MOST_QUEUES: usize = 15;
/// From here on memory is the model's.
pub const FREE: u64 = 0x1_0000;
/// What memory holds where nobody wrote.
pub const CANARY: u8 = 0xa5;

/// How a driver learns of what the device gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It looks.
    Polling,
    /// It waits for interrupts.
    Interrupts,
}

struct Port {
    driver: DriverQueue,
    kick: (OwnedFd, EventId),
    call: (OwnedFd, EventId),
    manner: Manner,
    /// Something was added and not published.
    unpublished: bool,
}

/// The guest's hardware.
pub struct Machine {
    /// The world.
    pub sim: Sim,
    /// The guest's memory.
    pub memory: GuestMemory,
    /// What was chosen once.
    pub settings: Settings,
    /// What a crime made available: nobody waits for it.
    pub(crate) outlaw: Option<(usize, u16)>,
    ports: Vec<Port>,
    bytes: u64,
}

impl Machine {
    /// With so much memory, of which all beyond the rings is [`CANARY`].
    ///
    /// # Panics
    ///
    /// If the host has no memory or no descriptors.
    pub fn new(sim: &Sim, settings: Settings, bytes: u64, random: &mut Numbers) -> Self {
        assert!(settings.sizes.len() <= MOST_QUEUES, "there is room for the rings");
        let memory = GuestMemory::sparse(bytes).expect("memory for a guest");
        let blank = vec![CANARY; (bytes - FREE) as usize];
        memory.write_slice(GuestAddress(FREE), &blank).expect("there is memory");
        let mut ports = Vec::new();
        for index in 0..settings.sizes.len() {
            let manner = if random.once_in(3) { Manner::Polling } else { Manner::Interrupts };
            ports.push(Port {
                driver: rings(&memory, &settings, index),
                kick: sim.event().expect("a descriptor"),
                call: sim.event().expect("a descriptor"),
                manner,
                unpublished: false,
            });
        }
        let mut machine = Self { sim: sim.clone(), memory, settings, outlaw: None, ports, bytes };
        machine.set_interrupts();
        machine
    }

    /// How many queues there are.
    pub fn queues(&self) -> usize {
        self.ports.len()
    }

    /// Whether features were negotiated.
    pub fn has(&self, features: u64) -> bool {
        self.settings.features & features == features
    }

    /// The driver's side of a queue. [`Machine::added`] tells that something was added.
    pub fn driver(&mut self, queue: usize) -> &mut DriverQueue {
        &mut self.ports[queue].driver
    }

    /// Adds buffers to a queue, through a table there if one is given and negotiated.
    pub fn add(&mut self, queue: usize, buffers: &[Buffer], table: Option<u64>) -> Option<u16> {
        let indirect = RingFeatures::from_bits(self.settings.features).indirect;
        let port = &mut self.ports[queue];
        let head = match table {
            Some(table) if indirect => port.driver.add_indirect(table, buffers)?,
            _ => port.driver.add(buffers)?,
        };
        port.unpublished = true;
        self.sim.note("add", [queue as u64, head.into(), buffers.len() as u64]);
        Some(head)
    }

    /// Something was added to a queue by other means.
    pub fn added(&mut self, queue: usize) {
        self.ports[queue].unpublished = true;
    }

    /// Shows the device what was added, and kicks if it wants that.
    pub fn publish(&mut self, queue: usize) {
        let port = &mut self.ports[queue];
        if !std::mem::take(&mut port.unpublished) {
            return;
        }
        let kick = port.driver.publish();
        self.sim.note("publish", [queue as u64, u64::from(kick == Kick::Wanted), 0]);
        if kick == Kick::Wanted {
            self.sim.signal(port.kick.1);
        }
    }

    /// Publishes all queues.
    pub fn publish_all(&mut self) {
        for queue in 0..self.ports.len() {
            self.publish(queue);
        }
    }

    /// Kicks whether that is wanted or not.
    pub fn kick(&mut self, queue: usize) {
        self.sim.signal(self.ports[queue].kick.1);
    }

    /// The next buffer that the driver finds given back, if it knows of one.
    pub fn take(&mut self, queue: usize) -> Option<Used> {
        let port = &mut self.ports[queue];
        if port.manner == Manner::Interrupts && !self.sim.take_signal(port.call.1) {
            return None;
        }
        loop {
            if let Some(used) = port.driver.take_used() {
                if port.manner == Manner::Interrupts {
                    // There may be more, for which no other interrupt comes.
                    self.sim.signal(port.call.1);
                }
                self.sim.note("used", [queue as u64, used.head.into(), used.written.into()]);
                return Some(used);
            }
            if port.manner == Manner::Polling || !port.driver.enable_interrupts() {
                return None;
            }
        }
    }

    /// Rings as after a reset by the driver.
    pub fn new_rings(&mut self) {
        self.outlaw = None;
        for index in 0..self.ports.len() {
            self.ports[index].driver = rings(&self.memory, &self.settings, index);
            self.ports[index].unpublished = false;
            // What was signalled before means nothing any more, and may come all the same.
        }
        self.set_interrupts();
    }

    fn set_interrupts(&mut self) {
        for port in &mut self.ports {
            match port.manner {
                Manner::Polling => port.driver.disable_interrupts(),
                // New rings: nothing is there yet.
                Manner::Interrupts => _ = port.driver.enable_interrupts(),
            }
        }
    }

    /// All queues, each where it stands if that is given.
    ///
    /// # Panics
    ///
    /// If there are no descriptors left.
    pub fn setups(&self, states: &[QueueState]) -> Vec<QueueSetup> {
        let setup = |(index, port): (usize, &Port)| {
            let clone = |file: &OwnedFd| file.try_clone().expect("a descriptor");
            let (kick, call) = (clone(&port.kick.0), clone(&port.call.0));
            let state = states.iter().copied().find(|state| usize::from(state.index) == index);
            QueueSetup { state, ..port.driver.layout().setup(index as u16, kick, call) }
        };
        self.ports.iter().enumerate().map(setup).collect()
    }

    /// Writes guest memory.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(GuestAddress(address), bytes).expect("an address of the model");
    }

    /// Reads guest memory.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn read(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        self.memory.read_slice(GuestAddress(address), &mut data).expect("an address of the model");
        data
    }

    /// Makes memory as if nobody had written to it.
    pub fn wipe(&self, address: u64, bytes: usize) {
        self.write(address, &vec![CANARY; bytes]);
    }

    /// Nobody has written there.
    ///
    /// # Panics
    ///
    /// If somebody has.
    pub fn assert_untouched(&self, address: u64, bytes: usize, what: &str) {
        let data = self.read(address, bytes);
        if let Some(place) = data.iter().position(|byte| *byte != CANARY) {
            panic!("memory outside of {what} was written: {:#x}", address + place as u64);
        }
    }

    /// Nobody has written to any memory of the model.
    pub fn assert_all_untouched(&self) {
        self.assert_untouched(FREE, (self.bytes - FREE) as usize, "all buffers");
    }
}

fn rings(memory: &GuestMemory, settings: &Settings, index: usize) -> DriverQueue {
    let features = RingFeatures::from_bits(settings.features);
    let (size, base) = (settings.sizes[index], RINGS + index as u64 * RING_BYTES);
    debug_assert!(DriverQueue::ring_bytes(size) <= RING_BYTES);
    DriverQueue::new(memory, base, size, settings.layout, features)
}
