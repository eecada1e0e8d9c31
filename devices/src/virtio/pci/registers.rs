//! What the guest sees in the common configuration, the ISR status and the device configuration.
//!
//! Plain state without any side effect: a write says what is to be done in a [`CommonWrite`].

use super::layout::COMMON_BYTES;
use super::status::{Status, StatusWrite};
use crate::virtio::backend::{DeviceProfile, RingLayout};

/// A queue or the configuration is mapped to no MSI-X vector (virtio 1.3 section 4.1.5.1.2).
pub(super) const NO_VECTOR: u16 = 0xffff;

/// ISR status: the configuration has changed.
const ISR_CONFIG: u8 = 2;

/// `VIRTIO_F_VERSION_1`.
const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_RING_PACKED`.
const RING_PACKED: u64 = 1 << 34;
/// Features of a transport that this one does not have, whatever the back end says: SR-IOV (37),
/// notification data (38), notification configuration data (39), ring reset (40), administration
/// virtqueue (41).
const NOT_OFFERED: u64 = 0b1_1111 << 37;

/// What is to be done after a write to the common configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommonWrite {
    /// Nothing.
    Done,
    /// Reset the device, then [`Registers::reset`].
    Reset,
    /// Activate the back end; `DRIVER_OK` is set already.
    Activate,
}

/// The registers of one queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueRegisters {
    max_size: u16,
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    pub(super) descriptor_table: u64,
    pub(super) available_ring: u64,
    pub(super) used_ring: u64,
}

impl QueueRegisters {
    fn new(max_size: u16) -> QueueRegisters {
        QueueRegisters {
            max_size,
            size: max_size,
            vector: NO_VECTOR,
            enabled: false,
            descriptor_table: 0,
            available_ring: 0,
            used_ring: 0,
        }
    }
}

/// The registers of a device.
#[derive(Debug)]
pub(super) struct Registers {
    device_features: u64,
    driver_features: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    config_vector: u16,
    vectors: u16,
    status: Status,
    /// A reset was asked for and the back end has not confirmed it yet.
    reset_pending: bool,
    queue_select: u16,
    queues: Vec<QueueRegisters>,
    generation: u8,
    isr: u8,
    config: Vec<u8>,
}

impl Registers {
    /// As after a reset. `vectors` is the number of MSI-X vectors.
    pub(super) fn new(profile: &DeviceProfile, vectors: u16) -> Registers {
        Registers {
            device_features: profile.features & !NOT_OFFERED | VERSION_1,
            driver_features: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            config_vector: NO_VECTOR,
            vectors,
            status: Status::empty(),
            reset_pending: false,
            queue_select: 0,
            queues: profile.queue_sizes.iter().map(|size| QueueRegisters::new(*size)).collect(),
            generation: 0,
            isr: 0,
            config: profile.config.clone(),
        }
    }

    /// The back end has confirmed a reset. The configuration space is the device's and stays.
    pub(super) fn reset(&mut self) {
        self.driver_features = 0;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.config_vector = NO_VECTOR;
        self.status = Status::empty();
        self.reset_pending = false;
        self.queue_select = 0;
        for queue in &mut self.queues {
            *queue = QueueRegisters::new(queue.max_size);
        }
        self.isr = 0;
    }

    /// The back end has not confirmed a reset in time: the status must not read as zero yet.
    pub(super) fn reset_failed(&mut self) {
        self.reset_pending = true;
        self.status |= Status::NEEDS_RESET;
    }

    pub(super) fn is_reset_pending(&self) -> bool {
        self.reset_pending
    }

    pub(super) fn status(&self) -> Status {
        self.status
    }

    /// The negotiated features.
    pub(super) fn features(&self) -> u64 {
        self.driver_features
    }

    /// The ring format that was negotiated.
    pub(super) fn ring_layout(&self) -> RingLayout {
        if self.driver_features & RING_PACKED == 0 { RingLayout::Split } else { RingLayout::Packed }
    }

    /// The enabled queues with their indices.
    pub(super) fn enabled_queues(&self) -> impl Iterator<Item = (u16, &QueueRegisters)> {
        (0..).zip(&self.queues).filter(|(_, queue)| queue.enabled)
    }

    /// Sets `DEVICE_NEEDS_RESET`. Returns the vector of the interrupt that is due, if one is.
    pub(super) fn needs_reset(&mut self) -> Option<u16> {
        if self.status.contains(Status::NEEDS_RESET) {
            return None;
        }
        self.status |= Status::NEEDS_RESET;
        self.config_interrupt()
    }

    /// The configuration space is now `config`. Returns the vector of the interrupt that is due.
    /// Refuses another length, which the guest could not know of.
    pub(super) fn change_config(&mut self, config: Vec<u8>) -> Result<Option<u16>, ()> {
        if config.len() != self.config.len() {
            return Err(());
        }
        if config == self.config {
            return Ok(None);
        }
        self.config = config;
        self.generation = self.generation.wrapping_add(1);
        Ok(self.config_interrupt())
    }

    /// Like [`Registers::change_config`] after a write of the driver, who knows of the change.
    pub(super) fn store_config(&mut self, config: Vec<u8>) -> Result<(), ()> {
        if config.len() != self.config.len() {
            return Err(());
        }
        if config != self.config {
            self.config = config;
            self.generation = self.generation.wrapping_add(1);
        }
        Ok(())
    }

    /// Length of the configuration space.
    pub(super) fn config_length(&self) -> usize {
        self.config.len()
    }

    /// The driver has to look at the configuration space: says by which vector it hears of it.
    pub(super) fn config_interrupt(&mut self) -> Option<u16> {
        if !self.status.contains(Status::DRIVER_OK) {
            return None;
        }
        self.isr |= ISR_CONFIG;
        (self.config_vector != NO_VECTOR).then_some(self.config_vector)
    }

    /// Reads the ISR status, which clears it. Queue interrupts do not show in it: without MSI-X
    /// there are none, and with it they need no status.
    pub(super) fn take_isr(&mut self) -> u8 {
        std::mem::take(&mut self.isr)
    }

    /// Reads the device configuration; zeros beyond its end.
    pub(super) fn read_config(&self, offset: u64, data: &mut [u8]) {
        for (index, byte) in (offset..).zip(data) {
            *byte =
                usize::try_from(index).ok().and_then(|at| self.config.get(at)).map_or(0, |b| *b);
        }
    }

    /// Reads the common configuration, any bytes of it; zeros beyond its end.
    pub(super) fn read_common(&self, offset: u64, data: &mut [u8]) {
        let image = self.common_image();
        for (index, byte) in (offset..).zip(data) {
            *byte = usize::try_from(index).ok().and_then(|at| image.get(at)).map_or(0, |b| *b);
        }
    }

    /// `struct virtio_pci_common_cfg` as it reads now. No driver reads it often.
    fn common_image(&self) -> [u8; COMMON_BYTES] {
        let mut image = [0; COMMON_BYTES];
        let mut put = |offset: usize, value: &[u8]| {
            image[offset..offset + value.len()].copy_from_slice(value);
        };
        put(0, &self.device_feature_select.to_le_bytes());
        put(4, &half(self.device_features, self.device_feature_select).to_le_bytes());
        put(8, &self.driver_feature_select.to_le_bytes());
        put(12, &half(self.driver_features, self.driver_feature_select).to_le_bytes());
        put(16, &self.config_vector.to_le_bytes());
        put(18, &(self.queues.len() as u16).to_le_bytes());
        put(20, &[self.status.bits(), self.generation]);
        put(22, &self.queue_select.to_le_bytes());
        // The fields of a queue that is not there read as zero (section 4.1.4.3.1).
        if let Some(queue) = self.queues.get(usize::from(self.queue_select)) {
            put(24, &queue.size.to_le_bytes());
            put(26, &queue.vector.to_le_bytes());
            put(28, &u16::from(queue.enabled).to_le_bytes());
            put(30, &self.queue_select.to_le_bytes());
            put(32, &queue.descriptor_table.to_le_bytes());
            put(40, &queue.available_ring.to_le_bytes());
            put(48, &queue.used_ring.to_le_bytes());
        }
        image
    }

    /// Writes the common configuration. Only accesses of a whole field, or of half a 64-bit one,
    /// have an effect, as section 4.1.3.1 demands of drivers.
    pub(super) fn write_common(&mut self, offset: u64, data: &[u8]) -> CommonWrite {
        let mut bytes = [0; 8];
        let Some(field) = bytes.get_mut(..data.len()) else {
            return CommonWrite::Done;
        };
        field.copy_from_slice(data);
        let value = u64::from_le_bytes(bytes);
        match (offset, data.len()) {
            (0, 4) => self.device_feature_select = value as u32,
            (8, 4) => self.driver_feature_select = value as u32,
            (12, 4) => self.write_features(value as u32),
            (16, 2) => self.config_vector = self.usable_vector(value as u16),
            (20, 1) => return self.write_status(value as u8),
            (22, 2) => self.queue_select = value as u16,
            (24..56, _) => self.write_queue(offset, data.len(), value),
            _ => {}
        }
        CommonWrite::Done
    }

    fn write_features(&mut self, value: u32) {
        if self.status.contains(Status::FEATURES_OK) {
            return;
        }
        let shift = match self.driver_feature_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        self.driver_features &= !(u64::from(u32::MAX) << shift);
        self.driver_features |= u64::from(value) << shift;
    }

    fn write_status(&mut self, value: u8) -> CommonWrite {
        let features_acceptable = || {
            self.driver_features & !self.device_features == 0
                && self.driver_features & VERSION_1 != 0
        };
        match self.status.write(value, features_acceptable) {
            StatusWrite::Reset => CommonWrite::Reset,
            // Until the reset is through, there is no way but that.
            _ if self.reset_pending => CommonWrite::Done,
            StatusWrite::Set(status) => {
                self.status = status;
                CommonWrite::Done
            }
            StatusWrite::Activate(status) => {
                self.status = status;
                CommonWrite::Activate
            }
        }
    }

    /// A vector that does not exist cannot be mapped, which the driver sees when it reads back.
    fn usable_vector(&self, vector: u16) -> u16 {
        if vector < self.vectors { vector } else { NO_VECTOR }
    }

    fn write_queue(&mut self, offset: u64, length: usize, value: u64) {
        let live = self.status.contains(Status::DRIVER_OK) || self.reset_pending;
        let packed = self.ring_layout() == RingLayout::Packed;
        let vector = self.usable_vector(value as u16);
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return;
        };
        // The back end has been told everything about a live queue.
        if live {
            return;
        }
        match (offset, length) {
            (26, 2) => queue.vector = vector,
            (28, 2) if value == 1 => queue.enabled = true,
            // The rest must be set before a queue is enabled (section 4.1.4.3.2).
            _ if queue.enabled => {}
            (24, 2) => {
                let size = value as u16;
                if (1..=queue.max_size).contains(&size) && (packed || size.is_power_of_two()) {
                    queue.size = size;
                }
            }
            (32 | 36, _) => set_part(&mut queue.descriptor_table, offset - 32, length, value),
            (40 | 44, _) => set_part(&mut queue.available_ring, offset - 40, length, value),
            (48 | 52, _) => set_part(&mut queue.used_ring, offset - 48, length, value),
            _ => {}
        }
    }
}

/// The half of 64 feature bits that a select register shows.
fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

/// Writes a 64-bit field at once or in halves.
fn set_part(field: &mut u64, offset: u64, length: usize, value: u64) {
    match (offset, length) {
        (0, 8) => *field = value,
        (0, 4) => *field = *field & !u64::from(u32::MAX) | value,
        (4, 4) => *field = *field & u64::from(u32::MAX) | value << 32,
        _ => {}
    }
}
