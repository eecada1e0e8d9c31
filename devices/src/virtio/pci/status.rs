//! The device status field and the order of its bits (virtio 1.3 sections 2.1 and 3.1.1).
//!
//! ```text
//!   0 ─► ACKNOWLEDGE ─► DRIVER ─► FEATURES_OK ─► DRIVER_OK
//!   ▲                                │ refused: reads back clear
//!   └── reset, from anywhere         ▼
//!       (DEVICE_NEEDS_RESET and FAILED may come on top at any time)
//! ```

bitflags::bitflags! {
    /// The device status field.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Status: u8 {
        /// The guest has found the device.
        const ACKNOWLEDGE = 1;
        /// The guest knows how to drive it.
        const DRIVER = 2;
        /// The driver is ready.
        const DRIVER_OK = 4;
        /// Features are negotiated.
        const FEATURES_OK = 8;
        /// The device cannot go on without a reset.
        const NEEDS_RESET = 64;
        /// The driver has given up.
        const FAILED = 128;
    }
}

/// What a write to the status field asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatusWrite {
    /// A reset of the device.
    Reset,
    /// This is the new status; nothing else is to be done.
    Set(Status),
    /// This is the new status, and `DRIVER_OK` is new in it.
    Activate(Status),
}

impl Status {
    /// What the driver's write of `value` does. `features_acceptable` says whether the features
    /// that the driver has selected by now could be confirmed.
    pub(super) fn write(
        self,
        value: u8,
        features_acceptable: impl FnOnce() -> bool,
    ) -> StatusWrite {
        if value == 0 {
            return StatusWrite::Reset;
        }
        // Drivers only ever add bits, and do not write the device's own.
        let asked = Status::from_bits_truncate(value) - Status::NEEDS_RESET;
        let mut status = self | (asked & (Status::ACKNOWLEDGE | Status::FAILED));
        // Each step needs all before it; what comes too early does not stick.
        if status.contains(Status::ACKNOWLEDGE) {
            status |= asked & Status::DRIVER;
        }
        let confirm = asked.contains(Status::FEATURES_OK) && status.contains(Status::DRIVER);
        if confirm && !status.contains(Status::FEATURES_OK) && features_acceptable() {
            status |= Status::FEATURES_OK;
        }
        if status.contains(Status::FEATURES_OK) {
            status |= asked & Status::DRIVER_OK;
        }
        if (status - self).contains(Status::DRIVER_OK) {
            StatusWrite::Activate(status)
        } else {
            StatusWrite::Set(status)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(status: Status, value: u8) -> StatusWrite {
        status.write(value, || true)
    }

    #[test]
    fn the_steps_of_a_driver_lead_to_activation() {
        let acknowledged = Status::ACKNOWLEDGE;
        assert_eq!(set(Status::empty(), 1), StatusWrite::Set(acknowledged));
        let driver = acknowledged | Status::DRIVER;
        assert_eq!(set(acknowledged, 3), StatusWrite::Set(driver));
        let features = driver | Status::FEATURES_OK;
        assert_eq!(set(driver, 11), StatusWrite::Set(features));
        assert_eq!(set(features, 15), StatusWrite::Activate(features | Status::DRIVER_OK));
    }

    #[test]
    fn refused_features_do_not_stick_and_bar_the_way() {
        let driver = Status::ACKNOWLEDGE | Status::DRIVER;
        assert_eq!(driver.write(11, || false), StatusWrite::Set(driver));
        assert_eq!(driver.write(15, || false), StatusWrite::Set(driver));
    }

    #[test]
    fn steps_cannot_be_left_out() {
        assert_eq!(set(Status::empty(), 4), StatusWrite::Set(Status::empty()));
        assert_eq!(set(Status::empty(), 2 | 8 | 4), StatusWrite::Set(Status::empty()));
        assert_eq!(set(Status::ACKNOWLEDGE, 8), StatusWrite::Set(Status::ACKNOWLEDGE));
    }

    #[test]
    fn bits_are_not_cleared_and_the_devices_own_not_set() {
        let all = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK;
        assert_eq!(set(all, 1), StatusWrite::Set(all));
        assert_eq!(set(Status::empty(), 0x40), StatusWrite::Set(Status::empty()));
        let broken = all | Status::NEEDS_RESET;
        assert_eq!(set(broken, 15), StatusWrite::Set(broken));
        assert_eq!(set(all, 0x8f), StatusWrite::Set(all | Status::FAILED));
    }

    proptest! {
        #[test]
        fn no_sequence_of_writes_skips_a_step(
            writes in proptest::collection::vec((1_u8..=255, any::<bool>()), 0..20)
        ) {
            let mut status = Status::empty();
            let mut activations = 0;
            for (value, acceptable) in writes {
                let new = match status.write(value, || acceptable) {
                    StatusWrite::Set(new) => new,
                    StatusWrite::Activate(new) => { activations += 1; new }
                    StatusWrite::Reset => unreachable!("zero is not written"),
                };
                prop_assert!(new.contains(status));
                for (step, needed) in [
                    (Status::DRIVER, Status::ACKNOWLEDGE),
                    (Status::FEATURES_OK, Status::DRIVER),
                    (Status::DRIVER_OK, Status::FEATURES_OK),
                ] {
                    prop_assert!(!new.contains(step) || new.contains(needed));
                }
                status = new;
            }
            prop_assert_eq!(activations, i32::from(status.contains(Status::DRIVER_OK)));
        }
    }
}
