//! What a driver reads and writes, without a back end taking part.

use super::super::layout::{BAR, DEVICE};
use super::model::{FEATURES, VERSION_1, bed};
use crate::pci::PciDevice;

#[test]
fn the_function_is_a_modern_block_device() {
    let bed = bed();
    assert_eq!(bed.config_u32(0), 0x1042_1af4);
    assert_eq!(bed.config_u32(8), 0x0180_0001);
    assert_eq!(bed.config_u8(0x3d), 0, "no interrupt pin");
}

#[test]
fn capabilities_say_where_everything_is() {
    let bed = bed();
    for (kind, offset, length) in [(1, 0, 64), (2, 0x3000, 8), (3, 0x1000, 1), (4, 0x2000, 24)] {
        let capability = bed.virtio_capability(kind).unwrap();
        assert_eq!(bed.config_u8(capability + 4), 0, "the BAR of type {kind}");
        assert_eq!(bed.config_u32(capability + 8), offset, "the offset of type {kind}");
        assert_eq!(bed.config_u32(capability + 12), length, "the length of type {kind}");
    }
    let notify = bed.virtio_capability(2).unwrap();
    assert_eq!((bed.config_u8(notify + 2), bed.config_u32(notify + 16)), (20, 4));
    assert!(bed.virtio_capability(5).is_some());
    let msix = bed.capability(0x11, |_| true).unwrap();
    assert_eq!(bed.config_u32(msix) >> 16, 2, "three vectors");
    assert_eq!((bed.config_u32(msix + 4), bed.config_u32(msix + 8)), (0x4000, 0x5000));
}

#[test]
fn features_are_offered_in_halves() {
    let bed = bed();
    assert_eq!(bed.device_features(), FEATURES | VERSION_1);
    bed.write(0, &2_u32.to_le_bytes());
    assert_eq!(bed.read_u32(4), 0);
}

#[test]
fn unknown_features_or_none_at_all_are_not_confirmed() {
    for features in [0, FEATURES, VERSION_1 | 1] {
        let bed = bed();
        bed.negotiate(features);
        assert_eq!(bed.status(), 3, "{features:#x}");
    }
    let bed = bed();
    bed.negotiate(VERSION_1 | 1 << 9);
    assert_eq!(bed.status(), 11);
    bed.set_features(0);
    bed.write(8, &0_u32.to_le_bytes());
    assert_eq!(bed.read_u32(12), 1 << 9, "features are final once confirmed");
}

#[test]
fn queues_are_selected_and_keep_what_fits() {
    let bed = bed();
    bed.negotiate(VERSION_1);
    assert_eq!(bed.read_u16(18), 2);
    bed.write(22, &1_u16.to_le_bytes());
    assert_eq!(bed.read_u16(24), 128);
    assert_eq!(bed.read_u16(30), 1);
    for (asked, kept) in [(64, 64), (0, 64), (100, 64), (256, 64), (1, 1)] {
        bed.write(24, &u16::to_le_bytes(asked));
        assert_eq!(bed.read_u16(24), kept, "asked for {asked}");
    }
    bed.write(32, &0x1122_3344_5566_7000_u64.to_le_bytes());
    bed.write(36, &0x99_u32.to_le_bytes());
    assert_eq!(u64::from_le_bytes(bed.read(32)), 0x99_5566_7000);
    bed.write(22, &0_u16.to_le_bytes());
    assert_eq!(u64::from_le_bytes(bed.read(32)), 0);
    bed.write(22, &2_u16.to_le_bytes());
    bed.write(24, &8_u16.to_le_bytes());
    bed.write(28, &1_u16.to_le_bytes());
    assert_eq!(bed.read::<32>(24), [0; 32], "a queue that is not there");
}

#[test]
fn a_packed_queue_may_have_any_size() {
    let bed = bed();
    bed.negotiate(VERSION_1 | 1 << 34);
    bed.write(24, &100_u16.to_le_bytes());
    assert_eq!(bed.read_u16(24), 100);
}

#[test]
fn an_enabled_queue_does_not_change() {
    let bed = bed();
    bed.negotiate(VERSION_1);
    bed.set_up_queue(0, 64, 1);
    bed.write(24, &32_u16.to_le_bytes());
    bed.write(32, &0_u64.to_le_bytes());
    bed.write(28, &0_u16.to_le_bytes());
    assert_eq!((bed.read_u16(24), bed.read_u16(28)), (64, 1));
    assert_eq!(u64::from_le_bytes(bed.read(32)), 0x1000);
}

#[test]
fn vectors_that_do_not_exist_read_back_as_none() {
    let bed = bed();
    for (vector, kept) in [(0, 0), (2, 2), (3, 0xffff), (0xffff, 0xffff)] {
        for register in [16, 26] {
            bed.write(register, &u16::to_le_bytes(vector));
            assert_eq!(bed.read_u16(register), kept);
        }
    }
}

#[test]
fn device_configuration_is_cached_and_ends() {
    let bed = bed();
    assert_eq!(bed.device_config(), (1..=24).collect::<Vec<u8>>());
    let mut beyond = [0xee; 8];
    bed.device.read_bar(BAR, DEVICE + 20, &mut beyond);
    assert_eq!(beyond, [21, 22, 23, 24, 0, 0, 0, 0]);
}

#[test]
fn the_window_in_configuration_space_reaches_the_bar() {
    let bed = bed();
    let window = bed.virtio_capability(5).unwrap();
    let point = |offset: u32, length: u32| {
        let _ = bed.device.write_config(window + 4, &[0]);
        let _ = bed.device.write_config(window + 8, &offset.to_le_bytes());
        let _ = bed.device.write_config(window + 12, &length.to_le_bytes());
    };
    point(20, 1);
    let _ = bed.device.write_config(window + 16, &[1, 0xee, 0xee, 0xee]);
    assert_eq!(bed.status(), 1);
    assert_eq!(bed.config_u8(window + 16), 1);
    point(18, 2);
    assert_eq!(bed.config_u32(window + 16) & 0xffff, 2);
    for (offset, length) in [(20, 3), (20, 0), (21, 2), (0x8000, 4), (u32::MAX, 1)] {
        point(offset, length);
        let _ = bed.device.write_config(window + 16, &[0; 4]);
        let _ = bed.config_u32(window + 16);
        assert_eq!(bed.status(), 1, "{offset:#x} {length}");
    }
}
