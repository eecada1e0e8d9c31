//! Commands, in a table, and their effects.

use std::cell::Cell;
use std::rc::Rc;

use proptest::prelude::*;

use super::super::control::execute;
use super::super::network::Network;
use super::super::protocol::Ack;
use super::super::{MacAddress, NetOptions, Offloads, Tap};
use super::bed::*;
use crate::virtio::backend::BackendEvent;
use crate::virtio::queue::Chain;

const OK: u8 = 0;
const ERROR: u8 = 1;

/// A table of addresses as a command carries it.
fn table(addresses: &[MacAddress]) -> Vec<u8> {
    let mut bytes = (addresses.len() as u32).to_le_bytes().to_vec();
    bytes.extend(addresses.iter().flat_map(|address| address.0));
    bytes
}

#[test]
fn each_command_is_answered_as_the_specification_says() {
    on_both(|| async {
        let mut bed = Bed::active(options(64), 4, 0).await;
        let control = 8;
        let many = vec![MacAddress([3; 6]); 500];
        let commands: Vec<(Vec<u8>, u8)> = vec![
            (vec![0, 0, 1], OK),
            (vec![0, 0, 0], OK),
            (vec![0, 0, 2], ERROR),
            (vec![0, 0], ERROR),
            (vec![0, 0, 1, 1], ERROR),
            (vec![0, 1, 1], OK),
            (vec![0, 5, 1], OK),
            (vec![0, 6, 1], ERROR),
            (vec![1], ERROR),
            ([vec![1, 0], table(&[]), table(&[])].concat(), OK),
            ([vec![1, 0], table(&[PEER]), table(&many)].concat(), OK),
            ([vec![1, 0], table(&[PEER])].concat(), ERROR),
            ([vec![1, 0], table(&[PEER]), table(&[]), vec![0]].concat(), ERROR),
            ([vec![1, 0], vec![0xff; 4]].concat(), ERROR),
            ([vec![1, 0], vec![0xff; 40]].concat(), ERROR),
            (vec![1, 1, 2, 0, 0, 0, 0, 9], OK),
            (vec![1, 1, 3, 0, 0, 0, 0, 9], ERROR),
            (vec![1, 1, 0, 0, 0, 0, 0, 0], ERROR),
            (vec![1, 1, 2, 0, 0, 0, 0], ERROR),
            (vec![2, 0, 1, 0], ERROR),
            (vec![3, 0], ERROR),
            (vec![4, 0, 4, 0], OK),
            (vec![4, 0, 1, 0], OK),
            (vec![4, 0, 0, 0], ERROR),
            (vec![4, 0, 5, 0], ERROR),
            (vec![4, 0, 4], ERROR),
            (vec![4, 1, 1, 0], ERROR),
            ([vec![5, 0], 0u64.to_le_bytes().to_vec()].concat(), OK),
            ([vec![5, 0], (1u64 << 1 | 1 << 7).to_le_bytes().to_vec()].concat(), OK),
            ([vec![5, 0], (1u64 << 1 | 1 << 15).to_le_bytes().to_vec()].concat(), ERROR),
            ([vec![5, 0], vec![0; 7]].concat(), ERROR),
            (vec![0xff, 0xff, 0xff], ERROR),
        ];
        for (bytes, answer) in commands {
            let given = bed.command(control, &bytes).await;
            assert_eq!(given, answer, "{bytes:?}");
        }
        bed.finish().await;
    });
}

#[test]
fn commands_of_features_that_were_not_negotiated_are_refused() {
    on_both(|| async {
        let without = 1 << 2 | 1 << 18 | 1 << 20 | MULTIPLE | 1 << 23;
        let mut bed = Bed::active(options(64), 2, without).await;
        for bytes in [
            vec![0, 0, 1],
            vec![0, 2, 1],
            [vec![1, 0], table(&[]), table(&[])].concat(),
            vec![1, 1, 2, 0, 0, 0, 0, 9],
            vec![4, 0, 1, 0],
            [vec![5, 0], 0u64.to_le_bytes().to_vec()].concat(),
        ] {
            assert_eq!(bed.command(CONTROL, &bytes).await, ERROR, "{bytes:?}");
        }
        bed.finish().await;
    });
}

#[test]
fn an_offload_that_was_not_negotiated_cannot_be_switched_on() {
    on_both(|| async {
        let mut bed = Bed::active(options(64), 1, OPTIONAL | 1 << 8).await;
        for (bit, answer) in [(7, OK), (8, ERROR), (10, OK), (0, ERROR), (63, ERROR)] {
            let bits = 1u64 << 1 | 1 << bit;
            let bytes = [vec![5, 0], bits.to_le_bytes().to_vec()].concat();
            assert_eq!(bed.command(CONTROL, &bytes).await, answer, "{bit}");
        }
        bed.finish().await;
    });
}

#[test]
fn a_command_without_a_byte_for_its_answer_breaks_the_queue() {
    on_both(|| async {
        let mut bed = Bed::active(options(64), 1, OPTIONAL).await;
        bed.driver(CONTROL).add(&[readable(place_at(0), 3)]).unwrap();
        bed.publish(CONTROL);
        let BackendEvent::NeedsReset { queue, reason } = bed.events.recv().await.unwrap() else {
            panic!("another event");
        };
        assert_eq!(queue, 2);
        assert!(reason.contains("answer"), "{reason}");
        bed.reset().await;
        bed.new_rings();
        bed.activate().await.unwrap();
        assert_eq!(bed.command(CONTROL, &[0, 0, 1]).await, OK);
        bed.finish().await;
    });
}

#[test]
fn the_filter_lets_through_what_the_driver_wants() {
    on_both(|| async {
        let mut bed = Bed::active(options(256), 1, OPTIONAL).await;
        let given = bed.give(RECEIVE, 256, 2048);
        let group = MacAddress([1, 0, 0x5e, 0, 0, 9]);
        let own_too = MacAddress([2, 0, 0, 0, 0, 0x77]);
        let all = [OWN, PEER, group, MacAddress::BROADCAST, own_too];
        let tables = [vec![1, 0], table(&[own_too]), table(&[group])].concat();
        // After each command, which of the five get through.
        for (command, passing) in [
            (vec![0, 0, 1], [true, true, true, true, true]),
            (vec![0, 0, 0], [true, false, false, true, false]),
            (tables, [true, false, true, true, true]),
            (vec![0, 5, 1], [true, false, true, false, true]),
            (vec![0, 2, 1], [true, true, true, false, true]),
            (vec![0, 2, 0], [true, false, true, false, true]),
            (vec![0, 3, 1], [true, false, false, false, true]),
            // Another address of its own.
            (vec![1, 1, 2, 0, 0, 0, 0, 2], [false, true, false, false, true]),
            (vec![0, 0, 1], [true, true, true, true, true]),
        ] {
            assert_eq!(bed.command(CONTROL, &command).await, OK);
            for (to, passes) in all.into_iter().zip(passing) {
                bed.inject(0, &plain(to, 60, 1)).await;
                if passes {
                    let received = bed.receive(RECEIVE, &given).await;
                    assert_eq!(received[12..18], to.0, "after {command:?}");
                }
            }
        }
        bed.finish().await;
    });
}

#[test]
fn a_new_address_shows_until_a_reset() {
    on_both(|| async {
        let mut bed = Bed::active(options(64), 1, OPTIONAL).await;
        assert_eq!(bed.config().await[..6], OWN.0);
        assert_eq!(bed.command(CONTROL, &[1, 1, 2, 0, 0, 0, 0, 9]).await, OK);
        let BackendEvent::ConfigChanged { config } = bed.events.recv().await.unwrap() else {
            panic!("another event");
        };
        assert_eq!(config[..6], [2, 0, 0, 0, 0, 9]);
        assert_eq!(bed.config().await, config);
        bed.reset().await;
        assert_eq!(bed.config().await[..6], OWN.0);
        bed.finish().await;
    });
}

/// A chain with `bytes` to read, cut where the numbers say.
fn chain_of(bed: &mut Bed, bytes: &[u8], cuts: &[usize]) {
    bed.write(place_at(400), bytes);
    let mut points: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    points.extend([0, bytes.len()]);
    points.sort_unstable();
    points.dedup();
    let mut buffers: Vec<_> = points
        .windows(2)
        .map(|ends| readable(place_at(400) + ends[0] as u64, (ends[1] - ends[0]) as u32))
        .collect();
    buffers.push(writable(place_at(401), 1));
    bed.driver(CONTROL).add(&buffers).unwrap();
    bed.publish(CONTROL);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_answered(
        commands in prop::collection::vec(
            (0u8..7, 0u8..7, prop::collection::vec(any::<u8>(), 0..80), any::<[usize; 3]>()),
            1..40,
        ),
    ) {
        let commands = Rc::new(commands);
        let answered = Rc::new(Cell::new(0));
        on(executor::DriverChoice::Epoll, || {
            let (commands, answered) = (commands.clone(), answered.clone());
            async move {
                let mut bed = Bed::active(options(64), 1, OPTIONAL).await;
                for (class, number, data, cuts) in commands.iter() {
                    let bytes = [vec![*class, *number], data.clone()].concat();
                    chain_of(&mut bed, &bytes, cuts);
                    bed.used(CONTROL).await;
                    assert!(bed.read(place_at(401), 1)[0] <= 1);
                    while bed.events.try_recv().is_ok() {}
                    answered.set(answered.get() + 1);
                }
                // It still does what it is told.
                assert_eq!(bed.command(CONTROL, &[0, 0, 1]).await, OK);
                bed.finish().await;
            }
        });
        // Over both ring formats.
        prop_assert_eq!(answered.get(), 2 * commands.len());
    }
}

#[test]
fn an_empty_command_is_refused() {
    let config = executor::Config::default();
    executor::Executor::new(&config).unwrap().block_on(async {
        let (sockets, _peers) = sockets(1);
        let tap = Tap::from_sockets(sockets, 1500, Offloads::all()).unwrap();
        let options: NetOptions = options(64);
        let patience = crate::virtio::worker::Patience::NO_LOOKING;
        let refill = std::time::Duration::ZERO;
        let network: Network = super::super::network(tap, &options, patience, refill).unwrap();
        let bed = Bed::start(options, 1);
        let mut chain = Chain::new(Rc::new(bed.memory.clone()), 4);
        assert_eq!(execute(&network, u64::MAX, &mut chain), None::<Ack>);
        let statistics = bed.statistics().await;
        assert_eq!(statistics.received.frames, 0);
        bed.finish().await;
    });
}
