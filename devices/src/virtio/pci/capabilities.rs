//! The PCI side: who the function is, and the vendor capabilities that say where things are
//! (virtio 1.3 sections 4.1.2 and 4.1.4).

use super::layout::{
    BAR, BAR_BYTES, COMMON, COMMON_BYTES, DEVICE, ISR, MSIX, NOTIFY, NOTIFY_MULTIPLIER,
};
use crate::pci::{BarKind, BarSpec, Identity, MSIX_CAPABILITY_ID, Msix, PciConfig, PciError};
use crate::virtio::backend::DeviceProfile;

const VIRTIO_VENDOR: u16 = 0x1af4;
/// Modern devices have their type above this (section 4.1.2.1).
const VIRTIO_DEVICE_BASE: u16 = 0x1040;
/// Modern devices say 0x40 and above.
const SUBSYSTEM: u16 = 0x40;

const VENDOR_CAPABILITY_ID: u8 = 0x09;
const TYPE_COMMON: u8 = 1;
const TYPE_NOTIFY: u8 = 2;
const TYPE_ISR: u8 = 3;
const TYPE_DEVICE: u8 = 4;
const TYPE_PCI_CONFIG: u8 = 5;

/// Bytes of `struct virtio_pci_cap`, and with one more double word.
const CAPABILITY_BYTES: u8 = 16;
const LONG_CAPABILITY_BYTES: u8 = 20;

/// Where in configuration space the capabilities are that this transport has to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct CapabilityOffsets {
    /// The message control word of MSI-X.
    pub(super) msix_control: u16,
    /// The window onto the BAR (section 4.1.4.9).
    pub(super) window: WindowOffsets,
}

/// The fields of the PCI configuration access capability.
#[derive(Debug, Clone, Copy)]
pub(super) struct WindowOffsets {
    pub(super) bar: u16,
    pub(super) offset: u16,
    pub(super) length: u16,
    pub(super) data: u16,
}

/// Builds the configuration space of a device.
pub(super) fn build(
    profile: &DeviceProfile,
    msix: &Msix,
) -> Result<(PciConfig, CapabilityOffsets), PciError> {
    let mut config = PciConfig::new(&Identity {
        vendor: VIRTIO_VENDOR,
        device: VIRTIO_DEVICE_BASE + profile.device_type,
        revision: 1,
        class: class_of(profile.device_type),
        subsystem_vendor: VIRTIO_VENDOR,
        subsystem: SUBSYSTEM,
    });
    config.add_bar(BarSpec { index: BAR, kind: BarKind::Memory64, size: BAR_BYTES })?;

    let notify_bytes = profile.queue_sizes.len() as u64 * u64::from(NOTIFY_MULTIPLIER);
    add(&mut config, &region(TYPE_COMMON, COMMON, COMMON_BYTES as u64))?;
    let mut notify = region(TYPE_NOTIFY, NOTIFY, notify_bytes).to_vec();
    notify[0] = LONG_CAPABILITY_BYTES;
    notify.extend_from_slice(&NOTIFY_MULTIPLIER.to_le_bytes());
    add(&mut config, &notify)?;
    add(&mut config, &region(TYPE_ISR, ISR, 1))?;
    if !profile.config.is_empty() {
        add(&mut config, &region(TYPE_DEVICE, DEVICE, profile.config.len() as u64))?;
    }
    let window = add_window(&mut config)?;

    let (body, writable) = msix.capability(MSIX);
    let msix = config.add_capability(MSIX_CAPABILITY_ID, &body, &writable)?;
    Ok((config, CapabilityOffsets { msix_control: msix + 2, window }))
}

/// The body of a `struct virtio_pci_cap`, without identifier and link.
fn region(kind: u8, offset: u64, length: u64) -> [u8; CAPABILITY_BYTES as usize - 2] {
    let mut body = [0; CAPABILITY_BYTES as usize - 2];
    body[0] = CAPABILITY_BYTES;
    body[1] = kind;
    body[2] = BAR.get();
    body[6..10].copy_from_slice(&(offset as u32).to_le_bytes());
    body[10..14].copy_from_slice(&(length as u32).to_le_bytes());
    body
}

fn add(config: &mut PciConfig, body: &[u8]) -> Result<u16, PciError> {
    config.add_capability(VENDOR_CAPABILITY_ID, body, &[])
}

/// The window: the driver writes BAR, offset, length, and then accesses the data field.
fn add_window(config: &mut PciConfig) -> Result<WindowOffsets, PciError> {
    let mut body = [0; LONG_CAPABILITY_BYTES as usize - 2];
    body[0] = LONG_CAPABILITY_BYTES;
    body[1] = TYPE_PCI_CONFIG;
    let mut writable = [0; LONG_CAPABILITY_BYTES as usize - 2];
    writable[2] = 0xff;
    writable[6..].fill(0xff);
    let start = config.add_capability(VENDOR_CAPABILITY_ID, &body, &writable)?;
    Ok(WindowOffsets { bar: start + 4, offset: start + 8, length: start + 12, data: start + 16 })
}

/// The PCI class that guests expect for a device type (virtio 1.3 section 5).
fn class_of(device_type: u16) -> u32 {
    match device_type {
        // Network controller.
        1 => 0x02_00_00,
        // Mass storage: block, SCSI, file system.
        2 | 8 | 26 => 0x01_80_00,
        // Simple communication controller: console, socket.
        3 | 19 => 0x07_80_00,
        // Display controller.
        16 => 0x03_80_00,
        // Input device.
        18 => 0x09_80_00,
        // Other: entropy, balloon, memory and the rest.
        _ => 0xff_00_00,
    }
}
