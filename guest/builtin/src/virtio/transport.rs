//! The PCI transport of virtio (section 4.1): capabilities, reset, features, queue set-up.

use alloc::{format, string::String};

use super::{
    feature,
    queue::{Queue, QueueAddresses},
};
use crate::{
    pci::{self, ConfigSpace, Function},
    platform::{mmio::Window, time},
};

pub(crate) const VENDOR: u16 = 0x1af4;
/// PCI device IDs of modern devices start here; the difference is the virtio device type.
pub(crate) const MODERN_ID: u16 = 0x1040;
const LAST_MODERN_ID: u16 = 0x107f;

const CAPABILITY_VENDOR: u8 = 0x09;
const CAPABILITY_MSIX: u8 = 0x11;

const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const ISR: u8 = 3;
const DEVICE: u8 = 4;

/// Offsets in the common configuration (section 4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub(super) const DEVICE_FEATURE: u64 = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub(super) const DRIVER_FEATURE: u64 = 0x0c;
    pub(super) const NUM_QUEUES: u64 = 0x12;
    pub(super) const STATUS: u64 = 0x14;
    pub(super) const QUEUE_SELECT: u64 = 0x16;
    pub(super) const QUEUE_SIZE: u64 = 0x18;
    pub(super) const QUEUE_ENABLE: u64 = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFFSET: u64 = 0x1e;
    pub(super) const QUEUE_DESCRIPTORS: u64 = 0x20;
    pub(super) const QUEUE_DRIVER: u64 = 0x28;
    pub(super) const QUEUE_DEVICE: u64 = 0x30;
    pub(super) const BYTES: u64 = 0x38;
}

const STATUS_ACKNOWLEDGE: u8 = 1;
const STATUS_DRIVER: u8 = 2;
const STATUS_DRIVER_OK: u8 = 4;
const STATUS_FEATURES_OK: u8 = 8;
const STATUS_NEEDS_RESET: u8 = 0x40;

/// How long a reset may take: the device finishes what it has in flight.
const RESET_SECONDS: u64 = 5;

/// A modern virtio device, found and mapped.
pub(crate) struct Transport {
    pub(crate) function: Function,
    common: Window,
    notify: Window,
    notify_multiplier: u32,
    device: Option<Window>,
    /// Vectors of its MSI-X table, 0 without one.
    pub(crate) vectors: u16,
}

impl Transport {
    /// Whether a function is a modern virtio device.
    pub(crate) fn is_virtio(function: Function) -> bool {
        function.vendor == VENDOR && (MODERN_ID..=LAST_MODERN_ID).contains(&function.id)
    }

    /// Finds the device's registers and enables its memory and DMA.
    pub(crate) fn new(space: &dyn ConfigSpace, function: Function) -> Result<Self, String> {
        let read = |offset| space.read(function.device, function.function, offset);
        let command = read(pci::COMMAND) & 0xffff;
        let enable = pci::COMMAND_MEMORY | pci::COMMAND_BUS_MASTER | pci::COMMAND_INTX_OFF;
        space.write(function.device, function.function, pci::COMMAND, command | enable);

        let (mut common, mut notify, mut isr, mut device) = (None, None, None, None);
        let mut notify_multiplier = 0;
        let mut vectors = 0;
        for (id, offset) in pci::capabilities(space, function) {
            if id == CAPABILITY_MSIX {
                vectors = (read(offset) >> 16 & 0x7ff) as u16 + 1;
            }
            if id != CAPABILITY_VENDOR {
                continue;
            }
            let kind = (read(offset) >> 24) as u8;
            if !(COMMON..=DEVICE).contains(&kind) {
                continue;
            }
            let window = map(space, function, offset)
                .map_err(|error| format!("virtio capability {kind}: {error}"))?;
            match kind {
                COMMON => common = common.or(Some(window)),
                NOTIFY if notify.is_none() => {
                    notify = Some(window);
                    notify_multiplier = read(offset + 16);
                }
                ISR => isr = isr.or(Some(window)),
                DEVICE => device = device.or(Some(window)),
                _ => {}
            }
        }
        let common = common.ok_or("no capability for the common configuration")?;
        if common.length() < common::BYTES {
            return Err(format!("common configuration of {} bytes", common.length()));
        }
        isr.ok_or("no capability for ISR status")?;
        let notify = notify.ok_or("no capability for notifications")?;
        Ok(Self { function, common, notify, notify_multiplier, device, vectors })
    }

    /// The virtio device type.
    pub(crate) fn device_type(&self) -> u16 {
        self.function.id - MODERN_ID
    }

    /// Resets the device and waits until that is done.
    pub(crate) fn reset(&self) -> Result<(), String> {
        self.common.write(common::STATUS, 0u8);
        if time::wait_for(RESET_SECONDS, || self.status() == 0) {
            Ok(())
        } else {
            Err(format!("status {:#x} after a reset", self.status()))
        }
    }

    /// Reset, then features: what the device offers of `wanted`. All of `required` must be there.
    pub(crate) fn negotiate(&self, wanted: u64, required: u64) -> Result<u64, String> {
        self.reset()?;
        self.common.write(common::STATUS, STATUS_ACKNOWLEDGE);
        self.common.write(common::STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
        let offered = self.offered_features();
        let required = required | feature::VERSION_1;
        if offered & required != required {
            return Err(format!("features {offered:#x} lack {:#x}", required & !offered));
        }
        let accepted = offered & (wanted | required);
        for (select, half) in [(0u32, accepted as u32), (1, (accepted >> 32) as u32)] {
            self.common.write(common::DRIVER_FEATURE_SELECT, select);
            self.common.write(common::DRIVER_FEATURE, half);
        }
        let status = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
        self.common.write(common::STATUS, status);
        if self.status() != status {
            return Err(format!("features {accepted:#x} refused"));
        }
        Ok(accepted)
    }

    fn offered_features(&self) -> u64 {
        let mut offered = 0;
        for select in [0u32, 1] {
            self.common.write(common::DEVICE_FEATURE_SELECT, select);
            let half: u32 = self.common.read(common::DEVICE_FEATURE);
            offered |= u64::from(half) << (select * 32);
        }
        offered
    }

    pub(crate) fn queue_count(&self) -> u16 {
        self.common.read(common::NUM_QUEUES)
    }

    /// The largest size of a queue; 0 where there is none.
    pub(crate) fn queue_size(&self, index: u16) -> u16 {
        self.common.write(common::QUEUE_SELECT, index);
        self.common.read(common::QUEUE_SIZE)
    }

    /// Tells the device where a queue is, and returns its doorbell.
    pub(crate) fn enable_queue(&self, index: u16, queue: &Queue) -> Result<Doorbell, String> {
        let QueueAddresses { size, descriptors, driver, device } = queue.addresses();
        self.common.write(common::QUEUE_SELECT, index);
        self.common.write(common::QUEUE_SIZE, size);
        for (register, address) in [
            (common::QUEUE_DESCRIPTORS, descriptors),
            (common::QUEUE_DRIVER, driver),
            (common::QUEUE_DEVICE, device),
        ] {
            // A driver accesses 64-bit fields as two of 32 bits (section 4.1.3.1).
            self.common.write(register, address as u32);
            self.common.write(register + 4, (address >> 32) as u32);
        }
        let kept: u32 = self.common.read(common::QUEUE_DESCRIPTORS);
        if kept != descriptors as u32 {
            return Err(format!("queue {index}: wrote address {descriptors:#x}, read {kept:#x}"));
        }
        self.common.write(common::QUEUE_ENABLE, 1u16);
        let enabled: u16 = self.common.read(common::QUEUE_ENABLE);
        if enabled != 1 {
            return Err(format!("queue {index} is not enabled"));
        }
        let offset: u16 = self.common.read(common::QUEUE_NOTIFY_OFFSET);
        let offset = u64::from(offset) * u64::from(self.notify_multiplier);
        if offset + 2 > self.notify.length() {
            return Err(format!("queue {index}: doorbell at {offset:#x} is outside of its window"));
        }
        Ok(Doorbell { register: self.notify.part(offset, 2), index })
    }

    /// Starts the device.
    pub(crate) fn driver_ok(&self) -> Result<(), String> {
        let status = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;
        self.common.write(common::STATUS, status);
        match self.status() {
            kept if kept == status => Ok(()),
            other => Err(format!("status {other:#x} after DRIVER_OK")),
        }
    }

    /// Whether the device says that it broke down.
    pub(crate) fn needs_reset(&self) -> bool {
        self.status() & STATUS_NEEDS_RESET != 0
    }

    fn status(&self) -> u8 {
        self.common.read(common::STATUS)
    }

    /// The device's own configuration, if it has so many bytes of it.
    pub(crate) fn device_config(&self, bytes: u64) -> Result<Window, String> {
        self.device
            .filter(|window| window.length() >= bytes)
            .ok_or_else(|| format!("no device configuration of {bytes} bytes"))
    }
}

/// What is written to tell the device that a queue has something new.
#[derive(Clone, Copy)]
pub(crate) struct Doorbell {
    register: Window,
    index: u16,
}

impl Doorbell {
    pub(crate) fn ring(&self) {
        self.register.write(0, self.index);
    }
}

/// Maps what a virtio capability describes.
fn map(space: &dyn ConfigSpace, function: Function, offset: u16) -> Result<Window, String> {
    let read = |at| space.read(function.device, function.function, at);
    let index = read(offset + 4) as u8;
    let (start, length) = (read(offset + 8), read(offset + 12));
    let bar =
        pci::bar(space, function, index).ok_or_else(|| format!("BAR {index} has no address"))?;
    bar.checked_add(u64::from(start))
        .and_then(|address| Window::device(address, u64::from(length)))
        .ok_or_else(|| format!("BAR {index} at {bar:#x}+{start:#x} cannot be mapped"))
}
