//! A driver without a guest, and the front end that has its queues served: for tests of devices behind sockets.

use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::front_end::{FrontEnd, SharedRegion};
use crate::virtio::queue::driver::BlockingDriver;

/// Virtio 1.3 section 6.
const VERSION_1: u64 = 1 << 32;

/// All that cannot be done is a panic.
#[derive(Debug)]
pub struct Driven {
    /// Who has the queues served.
    pub front_end: FrontEnd,
    driver: BlockingDriver,
}

impl Deref for Driven {
    type Target = BlockingDriver;

    fn deref(&self) -> &BlockingDriver {
        &self.driver
    }
}

impl DerefMut for Driven {
    fn deref_mut(&mut self) -> &mut BlockingDriver {
        &mut self.driver
    }
}

impl Driven {
    /// A driver with these features, which the device has to offer, and so many queues, which are not served yet.
    ///
    /// # Panics
    ///
    /// If it does not offer them.
    pub fn new(socket: UnixStream, features: u64, queues: usize) -> Self {
        let mut front_end = FrontEnd::new(socket).expect("a back end");
        let features = features | VERSION_1;
        let offered = front_end.features().expect("features");
        assert_eq!(offered & features, features, "the device offers {offered:#x}");
        let mut driver = BlockingDriver::new(features);
        driver.set_up(queues);
        Self { front_end, driver }
    }

    /// Has the queues served from where they stand, in memory that the device does not know yet.
    ///
    /// # Panics
    ///
    /// If the device refuses.
    pub fn begin(&mut self, bases: &[u32]) {
        self.front_end.set_features(self.driver.features()).expect("features");
        self.hand_over_memory();
        self.start(bases);
    }

    /// Says which memory there is; the device has to map it anew.
    ///
    /// # Panics
    ///
    /// If the device refuses.
    pub fn hand_over_memory(&mut self) {
        let (file, size) = self.driver.memory_file();
        let region = SharedRegion { guest: 0, size, file, offset: 0 };
        self.front_end.set_memory(&[region]).expect("memory");
    }

    /// Has the queues served, one after the other.
    ///
    /// # Panics
    ///
    /// If the device refuses.
    pub fn start(&mut self, bases: &[u32]) {
        for (index, base) in (0..self.driver.queues()).zip(bases) {
            let setup = self.driver.setup(index);
            let call = setup.call.as_ref().expect("there is one");
            let (layout, kick) = ((&setup).into(), setup.kick.as_fd());
            let started =
                self.front_end.start_ring(setup.index, &layout, *base as u16, kick, call.as_fd());
            started.expect("is served");
        }
    }

    /// Has none served any more; gives where they stand.
    ///
    /// # Panics
    ///
    /// If the device does not answer.
    pub fn stop(&mut self) -> Vec<u32> {
        let indices = 0..self.driver.queues() as u16;
        indices.map(|index| self.front_end.stop_ring(index).expect("stops")).collect()
    }
}
