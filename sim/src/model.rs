//! What a world needs to know of a device: how its back end starts, what its driver and its host do,
//! and what must hold.

use std::future::Future;
use std::pin::Pin;

use devices::virtio::backend::{BackendContext, BackendEvent, DeviceProfile};
use devices::virtio::control::ControlRequest;
use devices::virtio::queue::InflightRegion;
use devices::virtio::queue::driver::Used;
use executor::sim::Numbers;

use crate::machine::Machine;

/// A back end that runs.
pub type Running = Pin<Box<dyn Future<Output = ()>>>;

/// How a successor came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Succession {
    /// Its predecessor died.
    Crash,
    /// Its predecessor was paused, said where it stood, and ended.
    Handover,
}

/// Driver, host and oracle of one kind of device. What must not happen is a panic.
pub trait Model {
    /// What the device looks like to a transport.
    fn profile(&self) -> DeviceProfile;

    /// Features that a driver need not take, beside those of the rings.
    fn droppable(&self) -> u64 {
        0
    }

    /// How many of the profile's queues there are with these features.
    fn queues(&self, features: u64) -> usize {
        let _ = features;
        self.profile().queue_sizes.len()
    }

    /// The world begins with what was negotiated.
    fn begin(&mut self, machine: &mut Machine) {
        let _ = machine;
    }

    /// A back end in a new process.
    fn start(&mut self, region: InflightRegion, context: BackendContext) -> Running;

    /// The driver or the host does something. What the driver adds to queues is published by the
    /// world, sooner or later.
    fn act(&mut self, machine: &mut Machine, random: &mut Numbers);

    /// Somebody waits for the device, and the host goes on with what it does by itself.
    fn meanwhile(&mut self, machine: &mut Machine) {
        let _ = machine;
    }

    /// The driver breaks the rules on a queue. None if there was no way to just now. From then on the
    /// device may need a reset.
    fn misbehave(&mut self, machine: &mut Machine, random: &mut Numbers) -> Option<Crime> {
        let _ = (machine, random);
        None
    }

    /// The device gave a buffer back.
    fn used(&mut self, machine: &mut Machine, queue: usize, used: Used);

    /// The device said something.
    fn event(&mut self, machine: &mut Machine, event: &BackendEvent) {
        let _ = (machine, event);
    }

    /// Something else that the host does to the device.
    fn control(&mut self, random: &mut Numbers) -> Option<ControlRequest> {
        let _ = random;
        None
    }

    /// The device was reset: nothing that was in flight comes back, and nothing of it happens.
    fn reset(&mut self, machine: &mut Machine);

    /// Another back end has taken over.
    fn succeeded(&mut self, machine: &mut Machine, how: Succession) {
        let _ = (machine, how);
    }

    /// A back end is dead: whoever outlives it finds out what came of its last sync.
    fn settle(&mut self, machine: &Machine, region: &InflightRegion) {
        let _ = (machine, region);
    }

    /// Whether a successor that is told where the queues stand needs nothing else of its predecessor.
    fn survives_without_record(&self) -> bool {
        true
    }

    /// The host loses its power, if that means anything here: the guest begins anew as after a reset.
    /// False if it does not.
    fn power_cut(&mut self, machine: &mut Machine, random: &mut Numbers) -> bool {
        let _ = (machine, random);
        false
    }

    /// The end draws near: do what makes all that is under way come to an end. Called again and again
    /// until it says that nothing is left to do.
    fn wind_up(&mut self, machine: &mut Machine) -> bool {
        let _ = machine;
        true
    }

    /// What is in flight that the device should have answered by now, for the message.
    fn left_behind(&self) -> Option<String>;

    /// The last checks.
    fn finish(&mut self, machine: &mut Machine);
}

/// What becomes of a rule that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crime {
    /// The device must find out and ask for a reset.
    Unforgivable,
    /// The device may answer with an error, or ask for a reset.
    Petty,
}
