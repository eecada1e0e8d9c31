//! Accesses of any size anywhere, as a hostile guest makes them.

use proptest::prelude::*;

use super::super::Status;
use super::super::layout::{BAR, BAR_BYTES, MSIX_TABLE, NOTIFY};
use super::model::{Bed, bed};
use crate::pci::PciDevice;
use crate::virtio::backend::BackendEvent;

#[derive(Debug, Clone)]
enum Step {
    Read { offset: u64, length: usize },
    Write { offset: u64, data: Vec<u8> },
    ReadConfig { offset: u16, length: usize },
    WriteConfig { offset: u16, data: Vec<u8> },
    Event { config: Option<Vec<u8>> },
    Start,
    Reset,
}

/// Mostly where registers are, and anywhere else now and then.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..70_u64,
        2 => prop::sample::select(vec![0, 4, 8, 12, 16, 20, 22, 24, 26, 28, 32, 36, 40, 48, 58]),
        1 => NOTIFY..NOTIFY + 16,
        1 => MSIX_TABLE..MSIX_TABLE + 64,
        2 => 0..BAR_BYTES,
    ]
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0), Just(1), Just(3), Just(11), Just(15), any::<u8>()];
    let length = prop::sample::select(vec![0_usize, 1, 1, 2, 2, 3, 4, 4, 5, 8, 8, 13]);
    length.prop_flat_map(move |length| proptest::collection::vec(byte.clone(), length))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (offset(), 0..17_usize).prop_map(|(offset, length)| Step::Read { offset, length }),
        6 => (offset(), data()).prop_map(|(offset, data)| Step::Write { offset, data }),
        1 => (0..256_u16, 0..17_usize).prop_map(|(offset, length)| Step::ReadConfig { offset, length }),
        3 => (0..256_u16, data()).prop_map(|(offset, data)| Step::WriteConfig { offset, data }),
        1 => prop::option::of(proptest::collection::vec(any::<u8>(), 22..26))
            .prop_map(|config| Step::Event { config }),
        1 => Just(Step::Start),
        1 => Just(Step::Reset),
    ]
}

fn take(bed: &Bed, step: Step) {
    match step {
        Step::Read { offset, length } => bed.device.read_bar(BAR, offset, &mut vec![0; length]),
        Step::Write { offset, data } => bed.device.write_bar(BAR, offset, &data),
        Step::ReadConfig { offset, length } => {
            bed.device.read_config(offset, &mut vec![0; length]);
        }
        Step::WriteConfig { offset, data } => {
            let _ = bed.device.write_config(offset, &data);
        }
        Step::Event { config: Some(config) } => {
            bed.device.handle_event(BackendEvent::ConfigChanged { config });
        }
        Step::Event { config: None } => {
            let reason = "so it wants".into();
            bed.device.handle_event(BackendEvent::NeedsReset { queue: 0, reason });
        }
        Step::Start => bed.start(),
        Step::Reset => bed.set_status(0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_sequence_of_accesses_breaks_the_device(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let bed = bed();
        for step in steps {
            take(&bed, step);
            let status = bed.device.status();
            let enabled = bed.device.decoded_bars().len();
            // Notifications are registered exactly while active and decoded.
            let kicks = bed.kicks.addresses();
            prop_assert!(kicks.is_empty() || status.contains(Status::DRIVER_OK) && enabled == 1);
            for (queue, address) in kicks.iter().enumerate() {
                let bar = bed.device.decoded_bars()[0].address;
                prop_assert!(address.wrapping_sub(bar + NOTIFY) <= 4 * (queue as u64 + 1));
            }
        }
        // Whatever happened, a driver can start afresh.
        bed.set_status(0);
        prop_assert_eq!(bed.status(), 0);
        bed.start();
        prop_assert_eq!(bed.status(), 15);
        let seen = bed.seen.lock();
        for (_, queues) in &seen.activations {
            for queue in queues {
                prop_assert!(queue.index < 2 && queue.size >= 1 && queue.size <= 256);
            }
        }
    }
}
