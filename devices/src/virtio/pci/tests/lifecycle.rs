//! The device through its life, with a back end that serves, refuses, hangs and dies.

use super::super::Status;
use super::super::layout::{BAR, DEVICE, NOTIFY};
use super::model::{BAR_ADDRESS, Bed, Manner, VERSION_1, bed, hasty_bed};
use crate::event;
use crate::pci::{Decoding, PciDevice};
use crate::virtio::backend::{BackendEvent, BackendRequest, RingLayout};

const RUNNING: u8 = 15;
const NEEDS_RESET: u8 = 64;

fn needs_reset(bed: &Bed) {
    let reason = "a descriptor chain has no end".into();
    bed.device.handle_event(BackendEvent::NeedsReset { queue: 0, reason });
}

#[test]
fn activation_tells_the_back_end_everything() {
    let bed = bed();
    bed.enable_memory();
    bed.negotiate(VERSION_1 | 1 << 9);
    bed.set_up_queue(1, 32, 2);
    bed.set_status(15);
    assert_eq!(bed.status(), RUNNING);
    let seen = bed.seen.lock();
    let (features, queues) = &seen.activations[0];
    assert_eq!(*features, VERSION_1 | 1 << 9);
    let [queue] = &queues[..] else { panic!("{} queues", queues.len()) };
    assert_eq!((queue.index, queue.size, queue.layout), (1, 32, RingLayout::Split));
    let addresses = (queue.descriptor_table, queue.available_ring, queue.used_ring);
    assert_eq!(addresses, (0x1_1000, 0x1_2000, 0x1_0001_3000));
    assert!(queue.call.is_some() && queue.state.is_none());
}

#[test]
fn a_queue_without_a_vector_has_no_call_descriptor() {
    let bed = bed();
    bed.negotiate(VERSION_1);
    bed.set_up_queue(0, 32, 0xffff);
    bed.set_status(15);
    assert!(bed.seen.lock().activations[0].1[0].call.is_none());
}

#[test]
fn the_call_descriptor_is_the_interrupt_of_the_vector() {
    let bed = bed();
    bed.start();
    assert!(!bed.msi.take_delivered(1));
    event::signal(bed.call()).unwrap();
    assert!(bed.msi.take_delivered(1));
}

#[test]
fn writing_zero_resets_the_back_end_and_all_registers() {
    let bed = bed();
    bed.start();
    bed.set_status(0);
    assert_eq!(bed.status(), 0);
    assert_eq!(bed.seen.lock().resets, 1);
    assert_eq!(bed.read_u16(16), 0xffff);
    bed.write(22, &0_u16.to_le_bytes());
    let (size, vector, enabled) = (bed.read_u16(24), bed.read_u16(26), bed.read_u16(28));
    assert_eq!((size, vector, enabled), (256, 0xffff, 0));
    bed.start();
    assert_eq!(bed.status(), RUNNING);
    assert_eq!(bed.seen.lock().activations.len(), 2);
}

#[test]
fn a_reset_of_an_idle_device_does_not_bother_the_back_end() {
    let bed = bed();
    bed.negotiate(VERSION_1);
    bed.set_status(0);
    assert_eq!((bed.status(), bed.seen.lock().resets), (0, 0));
}

#[test]
fn a_failed_activation_needs_a_reset_and_interrupts() {
    let bed = bed();
    bed.set_manner(Manner::RefuseToStart);
    bed.start();
    assert_eq!(bed.status(), RUNNING | NEEDS_RESET);
    assert!(bed.msi.take_delivered(0));
    assert_eq!((bed.take_isr(), bed.take_isr()), (2, 0));
    assert!(bed.kicks.addresses().is_empty());
    bed.set_manner(Manner::Serve);
    bed.set_status(0);
    assert_eq!(bed.status(), 0);
    bed.start();
    assert_eq!(bed.status(), RUNNING);
}

#[test]
fn a_hanging_back_end_does_not_hang_the_vcpu_at_activation() {
    let bed = hasty_bed();
    bed.set_manner(Manner::Hang);
    bed.start();
    assert_eq!(bed.status(), RUNNING | NEEDS_RESET);
}

#[test]
fn a_reset_that_is_not_confirmed_does_not_read_as_zero_until_it_is() {
    for manner in [Manner::Hang, Manner::DropReplies] {
        let bed = hasty_bed();
        // The deadline of the model is short; a busy machine may need several attempts.
        while bed.status() != RUNNING {
            bed.set_status(0);
            bed.start();
        }
        bed.set_manner(manner);
        bed.set_status(0);
        assert_eq!(bed.status(), RUNNING | NEEDS_RESET, "{manner:?}");
        bed.set_status(15);
        assert!(bed.take_isr() == 2 && bed.msi.take_delivered(0));
        let activations = bed.seen.lock().activations.len();
        bed.set_manner(Manner::Serve);
        // As Linux does: wait until the status reads as zero.
        while bed.status() != 0 {}
        assert_eq!(bed.seen.lock().activations.len(), activations);
    }
}

#[test]
fn a_dead_back_end_is_reset_but_does_not_start() {
    let bed = bed();
    bed.start();
    bed.set_manner(Manner::Die);
    bed.device.write_bar(BAR, DEVICE, &[9]);
    assert_eq!(bed.status(), RUNNING | NEEDS_RESET);
    while bed.status() != 0 {
        bed.set_status(0);
    }
    bed.start();
    assert_eq!(bed.status(), RUNNING | NEEDS_RESET);
}

#[test]
fn notifications_are_registered_while_the_device_is_active() {
    let bed = bed();
    bed.enable_memory();
    assert!(bed.kicks.addresses().is_empty());
    bed.start();
    assert_eq!(bed.kicks.addresses(), [BAR_ADDRESS + NOTIFY]);
    bed.set_status(0);
    assert!(bed.kicks.addresses().is_empty());
    bed.start();
    drop(bed.device);
    assert!(bed.kicks.addresses().is_empty());
}

#[test]
fn notifications_follow_the_bar() {
    let bed = bed();
    bed.start();
    assert_eq!(bed.device.write_config(0x14, &[0x90, 0, 0, 0]), Decoding::Changed);
    assert_eq!(bed.kicks.addresses(), [0x90_0000_0000 + NOTIFY]);
    assert_eq!(bed.device.write_config(4, &[0, 0]), Decoding::Changed);
    assert!(bed.kicks.addresses().is_empty());
    bed.enable_memory();
    assert_eq!(bed.kicks.addresses(), [0x90_0000_0000 + NOTIFY]);
}

#[test]
fn notifications_that_arrive_as_accesses_signal_the_queue() {
    let bed = bed();
    bed.start();
    let kick = bed.kick();
    for data in [&[0, 0][..], &[0; 4], &[7]] {
        assert!(!event::is_signalled(&kick).unwrap());
        bed.notify(0, data);
        assert!(event::is_signalled(&kick).unwrap());
        event::drain(&kick).unwrap();
    }
    bed.notify(1, &[0]);
    bed.notify(900, &[0]);
    assert!(!event::is_signalled(&kick).unwrap());
    bed.set_status(0);
    bed.notify(0, &[0]);
    assert!(!event::is_signalled(&kick).unwrap(), "not active");
}

#[test]
fn live_queues_do_not_change() {
    let bed = bed();
    bed.start();
    bed.write(22, &0_u16.to_le_bytes());
    bed.write(26, &2_u16.to_le_bytes());
    assert_eq!(bed.read_u16(26), 1);
    bed.set_up_queue(1, 8, 2);
    assert_eq!(bed.read_u16(28), 0, "queues cannot come later");
}

#[test]
fn a_changed_configuration_interrupts_and_has_a_new_generation() {
    let bed = bed();
    let event = |first| BackendEvent::ConfigChanged {
        config: std::iter::once(first).chain(2..=24).collect(),
    };
    bed.device.handle_event(event(40));
    assert_eq!((bed.device_config()[0], bed.read::<1>(21)), (40, [1]));
    assert_eq!(bed.take_isr(), 0, "no driver to interrupt");
    bed.start();
    bed.device.handle_event(event(41));
    assert_eq!((bed.device_config()[0], bed.read::<1>(21)), (41, [2]));
    assert!(bed.msi.take_delivered(0));
    assert_eq!((bed.take_isr(), bed.take_isr()), (2, 0));
    bed.device.handle_event(event(41));
    assert!(!bed.msi.take_delivered(0), "nothing has changed");
    for config in [vec![], vec![0; 23], vec![0; 25]] {
        bed.device.handle_event(BackendEvent::ConfigChanged { config });
    }
    assert_eq!((bed.device_config()[0], bed.read::<1>(21)), (41, [2]));
}

#[test]
fn a_broken_queue_needs_a_reset_once() {
    let bed = bed();
    needs_reset(&bed);
    assert_eq!(bed.status(), 0, "news from before a reset");
    bed.start();
    needs_reset(&bed);
    assert_eq!(bed.status(), RUNNING | NEEDS_RESET);
    assert_eq!(bed.device.status(), Status::from_bits_retain(RUNNING | NEEDS_RESET));
    assert!(bed.msi.take_delivered(0));
    needs_reset(&bed);
    assert!(!bed.msi.take_delivered(0));
    bed.set_status(0);
    assert_eq!(bed.status(), 0);
}

#[test]
fn configuration_writes_reach_the_back_end_and_read_back() {
    let bed = bed();
    bed.start();
    bed.device.write_bar(BAR, DEVICE + 4, &[90, 91]);
    assert_eq!(bed.device_config()[3..7], [4, 90, 91, 7]);
    assert_eq!(bed.seen.lock().config[3..7], [4, 90, 91, 7]);
    assert!(!bed.msi.take_delivered(0), "the driver knows");
    bed.device.write_bar(BAR, DEVICE + 23, &[1, 2]);
    assert_eq!(bed.device_config()[23], 24, "beyond the end");
}

#[test]
fn events_are_handled_while_a_vcpu_waits_for_the_back_end() {
    let bed = bed();
    bed.start();
    bed.set_manner(Manner::Hang);
    let device = bed.device.clone();
    let vcpu = std::thread::spawn(move || device.write_bar(BAR, DEVICE, &[1]));
    while bed.seen.lock().kept == 0 {
        std::thread::yield_now();
    }
    needs_reset(&bed);
    assert_eq!(bed.status(), RUNNING | NEEDS_RESET);
    assert!(!vcpu.is_finished());
    bed.set_manner(Manner::Serve);
    vcpu.join().unwrap();
}

#[test]
fn a_successor_is_told_what_the_driver_wrote_before_it_starts() {
    let bed = bed();
    // Before the driver is ready, and after.
    bed.device.write_bar(BAR, DEVICE + 12, &[7, 7]);
    bed.start();
    bed.device.write_bar(BAR, DEVICE + 4, &[1]);
    bed.device.write_bar(BAR, DEVICE + 4, &[2]);
    let (requests, mut receiver) = ipc::channel(4);
    let successor = std::thread::spawn(move || {
        let mut told = Vec::new();
        loop {
            match receiver.recv_blocking(ipc::Deadline::after(std::time::Duration::from_mins(1))) {
                Ok(BackendRequest::WriteConfig { offset, data, reply }) => {
                    told.push((offset, data));
                    reply.send(());
                }
                Ok(BackendRequest::Activate { reply, .. }) => {
                    reply.send(Ok(()));
                    return told;
                }
                other => panic!("another request: {other:?}"),
            }
        }
    });
    bed.device.replace_backend(requests, || panic!("nothing is void")).unwrap();
    assert_eq!(successor.join().unwrap(), [(12, vec![7, 7]), (4, vec![2])]);
}
