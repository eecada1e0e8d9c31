use proptest::prelude::*;

use super::*;
use crate::testing::MockMsi;

const ENABLE: u16 = CONTROL_ENABLE;
const ENABLE_MASKED: u16 = CONTROL_ENABLE | CONTROL_FUNCTION_MASK;

fn msix(count: usize) -> (Msix, MockMsi) {
    let mock = MockMsi::default();
    (Msix::new(&mock, count).unwrap(), mock)
}

fn write_u32(msix: &Msix, offset: u64, value: u32) {
    msix.write_table(offset, &value.to_le_bytes());
}

fn program(msix: &Msix, vector: u64, data: u32) {
    let base = vector * MSIX_ENTRY_BYTES;
    write_u32(msix, base, 0xfee0_1000);
    write_u32(msix, base + 4, 0);
    write_u32(msix, base + 8, data);
    write_u32(msix, base + 12, 0);
}

fn pending(msix: &Msix) -> u8 {
    let mut bits = [0; 1];
    msix.read_pending(0, &mut bits);
    bits[0]
}

#[test]
fn a_vector_is_attached_when_all_three_masks_are_open() {
    let (msix, mock) = msix(2);
    program(&msix, 1, 0x41);
    assert!(!mock.view(1).attached, "MSI-X is off");
    msix.set_control(ENABLE_MASKED);
    assert!(!mock.view(1).attached, "the function is masked");
    msix.set_control(ENABLE);
    assert_eq!(mock.view(1).message, Some((0xfee0_1000, 0x41)));
    assert!(mock.view(1).attached);
    assert!(!mock.view(0).attached, "vectors are masked after reset");
    write_u32(&msix, 0x1c, 1);
    assert!(!mock.view(1).attached, "the vector is masked");
    write_u32(&msix, 0x1c, 0);
    assert!(mock.view(1).attached);
    msix.set_control(0);
    assert!(!mock.view(1).attached);
}

#[test]
fn signals_while_masked_are_pending_and_come_when_unmasked() {
    let (msix, mock) = msix(2);
    msix.set_control(ENABLE);
    program(&msix, 0, 0x41);
    program(&msix, 1, 0x42);
    msix.trigger(1);
    assert!(mock.take_delivered(1));
    write_u32(&msix, 0x1c, 1);
    assert_eq!(pending(&msix), 0);
    msix.trigger(1);
    assert_eq!(pending(&msix), 0b10);
    assert!(!mock.take_delivered(1));
    write_u32(&msix, 0x1c, 0);
    assert!(mock.take_delivered(1));
    assert_eq!(pending(&msix), 0);
    assert!(!mock.take_delivered(0));
}

#[test]
fn the_function_mask_makes_all_vectors_pending() {
    let (msix, mock) = msix(2);
    program(&msix, 0, 0x41);
    program(&msix, 1, 0x42);
    msix.set_control(ENABLE_MASKED);
    msix.trigger(0);
    msix.trigger(1);
    assert_eq!(pending(&msix), 0b11);
    msix.set_control(ENABLE);
    assert!(mock.take_delivered(0) && mock.take_delivered(1));
}

#[test]
fn signals_from_before_msix_was_enabled_are_dropped() {
    let (msix, mock) = msix(1);
    program(&msix, 0, 0x41);
    msix.trigger(0);
    assert_eq!(pending(&msix), 0);
    msix.set_control(ENABLE);
    assert!(!mock.take_delivered(0));
}

#[test]
fn a_message_changed_while_masked_is_routed_once_when_unmasked() {
    let (msix, mock) = msix(1);
    msix.set_control(ENABLE);
    program(&msix, 0, 0x41);
    write_u32(&msix, 12, 1);
    let calls = mock.view(0).calls;
    write_u32(&msix, 0, 0xfee0_2000);
    write_u32(&msix, 8, 0x55);
    assert_eq!(mock.view(0).calls, calls);
    write_u32(&msix, 12, 0);
    assert_eq!(mock.view(0).message, Some((0xfee0_2000, 0x55)));
    assert_eq!(mock.view(0).calls, calls + 2);
}

#[test]
fn masking_again_costs_no_call() {
    let (msix, mock) = msix(1);
    msix.set_control(ENABLE);
    program(&msix, 0, 0x41);
    let calls = mock.view(0).calls;
    write_u32(&msix, 12, 0);
    msix.set_control(ENABLE);
    assert_eq!(mock.view(0).calls, calls);
}

#[test]
fn quad_words_write_two_registers() {
    let (msix, mock) = msix(1);
    msix.set_control(ENABLE);
    msix.write_table(0, &0x0000_0001_fee0_3000_u64.to_le_bytes());
    msix.write_table(8, &0x77_u64.to_le_bytes());
    assert_eq!(mock.view(0).message, Some((0x1_fee0_3000, 0x77)));
    assert!(mock.view(0).attached);
    let mut data = [0; 16];
    msix.read_table(0, &mut data);
    assert_eq!(data[..8], 0x0000_0001_fee0_3000_u64.to_le_bytes());
}

#[test]
fn impossible_counts_are_refused() {
    for count in [0, 2049] {
        let error = Msix::new(&MockMsi::default(), count).unwrap_err();
        assert!(matches!(error, PciError::VectorCount(_)), "{error}");
    }
}

proptest! {
    // The mock panics on calls out of order.
    #[test]
    fn any_access_keeps_masks_and_attachment_in_step(
        steps in proptest::collection::vec((0_u8..4, any::<u64>(), 0_usize..9, any::<u64>()), 1..80)
    ) {
        let (msix, mock) = msix(3);
        for (kind, place, length, value) in steps {
            // Mostly in the table, now and then anywhere.
            let offset = if place & 0xf00 == 0 { place } else { place % 64 };
            let mut bytes = value.to_le_bytes();
            match kind {
                0 => msix.write_table(offset, &bytes[..length]),
                1 => msix.read_table(offset.min(u64::MAX - 8), &mut bytes[..length]),
                2 => msix.read_pending(offset.min(u64::MAX - 8), &mut bytes[..length]),
                _ => msix.set_control(value as u16),
            }
            msix.trigger(value as u16 % 4);
            let state = msix.state.lock();
            let open = state.control & ENABLE_MASKED == ENABLE;
            for (index, entry) in state.entries.iter().enumerate() {
                let wanted = open && entry.words[3] & 1 == 0;
                prop_assert_eq!(mock.view(index).attached, wanted);
                if wanted {
                    let address = u64::from(entry.words[1]) << 32 | u64::from(entry.words[0]);
                    prop_assert_eq!(mock.view(index).message, Some((address, entry.words[2])));
                }
            }
        }
    }
}
