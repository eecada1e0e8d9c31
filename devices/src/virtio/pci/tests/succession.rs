//! The death of a back end that gets a successor, and of one that gets none.

use std::cell::Cell;

use ipc::Deadline;

use super::super::layout::{BAR, DEVICE};
use super::model::{BackEnd, Bed, Manner, VERSION_1, back_end, replaceable_bed};
use crate::event;
use crate::pci::PciDevice;
use crate::virtio::backend::{BackendRequest, RingLayout};

const RUNNING: u8 = 15;
const NEEDS_RESET: u8 = 64;

/// Turns to a successor; whether what was in flight was void.
fn replace(bed: &Bed, successor: &BackEnd) -> Result<bool, String> {
    let void = Cell::new(false);
    bed.device.replace_backend(successor.requests.clone(), || void.set(true))?;
    Ok(void.get())
}

fn write_device_config(bed: &Bed, offset: u64, data: &[u8]) {
    bed.device.write_bar(BAR, DEVICE + offset, data);
}

#[test]
fn a_successor_is_activated_with_what_the_driver_negotiated() {
    let mut bed = replaceable_bed();
    bed.enable_memory();
    bed.enable_msix();
    bed.negotiate(VERSION_1 | 1 << 9);
    bed.set_up_queue(1, 32, 2);
    bed.set_status(RUNNING);
    bed.bury();
    let successor = back_end();
    assert_eq!(replace(&bed, &successor), Ok(false), "the driver waits for what is in flight");
    assert_eq!(bed.status(), RUNNING);
    let seen = successor.seen.lock();
    let [(features, queues)] = &seen.activations[..] else { panic!("{:?}", seen.activations) };
    assert_eq!((*features, seen.resets), (VERSION_1 | 1 << 9, 0));
    let [queue] = &queues[..] else { panic!("{} queues", queues.len()) };
    assert_eq!((queue.index, queue.size, queue.layout), (1, 32, RingLayout::Split));
    let addresses = (queue.descriptor_table, queue.available_ring, queue.used_ring);
    assert_eq!(addresses, (0x1_1000, 0x1_2000, 0x1_0001_3000));
    // The driver's notifications and interrupts are those of the successor.
    bed.notify(1, &[1, 0]);
    assert!(event::is_signalled(&queue.kick).unwrap());
    event::signal(queue.call.as_ref().unwrap()).unwrap();
    assert!(bed.msi.take_delivered(2));
}

#[test]
fn a_kick_that_the_dead_did_not_take_reaches_the_successor() {
    let mut bed = replaceable_bed();
    bed.start();
    bed.bury();
    bed.notify(0, &[0, 0]);
    let successor = back_end();
    assert_eq!(replace(&bed, &successor), Ok(false));
    let seen = successor.seen.lock();
    assert!(event::is_signalled(&seen.activations[0].1[0].kick).unwrap());
}

#[test]
fn a_reset_without_a_back_end_makes_void_what_it_left() {
    let mut bed = replaceable_bed();
    bed.start();
    bed.bury();
    bed.set_status(0);
    assert_eq!(bed.status(), 0, "nobody works on the queues any more");
    let successor = back_end();
    assert_eq!(replace(&bed, &successor), Ok(true));
    assert!(successor.seen.lock().activations.is_empty(), "the device is not active");
    bed.start();
    assert_eq!(bed.status(), RUNNING);
    assert_eq!(successor.seen.lock().activations.len(), 1);
}

#[test]
fn a_driver_that_starts_anew_without_a_back_end_gets_one_with_nothing_in_flight() {
    let mut bed = replaceable_bed();
    bed.start();
    bed.bury();
    bed.set_status(0);
    bed.start();
    assert_eq!(bed.status(), RUNNING, "its successor will serve");
    let successor = back_end();
    assert_eq!(replace(&bed, &successor), Ok(true));
    assert_eq!(successor.seen.lock().activations.len(), 1);
    // That was settled with the first successor.
    let second = back_end();
    drop(successor.bury());
    assert_eq!(replace(&bed, &second), Ok(false));
}

#[test]
fn configuration_writes_are_repeated_until_a_reset() {
    let mut bed = replaceable_bed();
    bed.start();
    write_device_config(&bed, 4, &[90, 91]);
    bed.bury();
    write_device_config(&bed, 4, &[80, 81]);
    write_device_config(&bed, 6, &[92]);
    assert_eq!(bed.status(), RUNNING);
    let successor = back_end();
    assert_eq!(replace(&bed, &successor), Ok(false));
    assert_eq!(successor.seen.lock().config[3..8], [4, 80, 81, 92, 8]);
    bed.set_status(0);
    bed.start();
    drop(successor.bury());
    let second = back_end();
    assert_eq!(replace(&bed, &second), Ok(false));
    assert_eq!(second.seen.lock().config[3..8], [4, 5, 6, 7, 8]);
}

#[test]
fn a_successor_that_is_dead_or_refuses_is_an_error_and_the_next_one_serves() {
    let mut bed = replaceable_bed();
    bed.start();
    bed.bury();
    let dead = back_end().bury();
    let outcome = bed.device.replace_backend(dead, || panic!("nothing was reset"));
    assert!(outcome.unwrap_err().contains("activating"));
    assert_eq!(bed.status(), RUNNING, "there will be another");
    let stubborn = back_end();
    stubborn.seen.lock().manner = Manner::RefuseToStart;
    assert!(replace(&bed, &stubborn).unwrap_err().contains("upside down"));
    let successor = back_end();
    assert_eq!(replace(&bed, &successor), Ok(false));
    assert_eq!((bed.status(), successor.seen.lock().activations.len()), (RUNNING, 1));
}

#[test]
fn a_driver_that_writes_meanwhile_waits_until_the_successor_serves() {
    let mut bed = replaceable_bed();
    bed.start();
    bed.bury();
    let deadline = Deadline::after(std::time::Duration::from_mins(1));
    let (requests, mut received) = ipc::channel(4);
    let device = bed.device.clone();
    let take_over = std::thread::spawn(move || device.replace_backend(requests, || ()));
    let Ok(BackendRequest::Activate { reply, .. }) = received.recv_blocking(deadline) else {
        panic!("it is activated first");
    };
    let device = bed.device.clone();
    let vcpu = std::thread::spawn(move || device.write_bar(BAR, DEVICE, &[7]));
    // What need not wait does not.
    bed.notify(0, &[0, 0]);
    assert_eq!(bed.status(), RUNNING);
    assert!(received.try_recv().is_err(), "nobody else calls a back end that is not active");
    reply.send(Ok(()));
    take_over.join().unwrap().unwrap();
    let Ok(BackendRequest::WriteConfig { offset: 0, data, reply }) =
        received.recv_blocking(deadline)
    else {
        panic!("the driver's write comes next");
    };
    assert_eq!(data, [7]);
    reply.send(());
    let Ok(BackendRequest::ReadConfig { reply, .. }) = received.recv_blocking(deadline) else {
        panic!("and reads back");
    };
    reply.send((101..=124).collect());
    vcpu.join().unwrap();
    assert_eq!((bed.device_config()[0], bed.status()), (101, RUNNING));
}

#[test]
fn a_device_that_is_given_up_needs_a_reset_and_does_not_start_again() {
    let mut bed = replaceable_bed();
    bed.start();
    bed.bury();
    write_device_config(&bed, 0, &[1]);
    assert_eq!(bed.status(), RUNNING);
    assert!(!bed.msi.take_delivered(0));
    bed.device.give_up("it died too often");
    assert_eq!(bed.status(), RUNNING | NEEDS_RESET);
    assert!(bed.msi.take_delivered(0));
    while bed.status() != 0 {
        bed.set_status(0);
    }
    bed.start();
    assert_eq!(bed.status(), RUNNING | NEEDS_RESET);
}

#[test]
fn giving_up_an_idle_device_tells_the_driver_when_it_starts() {
    let mut bed = replaceable_bed();
    bed.bury();
    bed.device.give_up("it died too often");
    assert_eq!(bed.status(), 0);
    assert!(!bed.msi.take_delivered(0));
    bed.start();
    assert_eq!(bed.status(), RUNNING | NEEDS_RESET);
}
