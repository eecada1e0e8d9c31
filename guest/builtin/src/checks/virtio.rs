//! Every virtio device: its capabilities, reset, features and a queue.

use alloc::format;

use super::{Checked, pci::Devices};
use crate::{
    cmdline::{RingLayout, RingWishes, Wish},
    pci::Function,
    report::Report,
    virtio::{
        feature,
        queue::{Queue, Shape},
        transport::Transport,
        type_name,
    },
};

pub(super) fn check(devices: &Devices, rings: RingWishes, report: &mut Report) {
    for function in devices.functions.iter().filter(|function| Transport::is_virtio(**function)) {
        let result = check_device(devices, *function, rings);
        report.check(&format!("virtio {function}"), result);
    }
}

fn check_device(devices: &Devices, function: Function, rings: RingWishes) -> Checked {
    let transport = Transport::new(&*devices.space, function)?;
    let required = match rings.layout {
        RingLayout::Split => 0,
        RingLayout::Packed => feature::RING_PACKED,
    };
    let mut wanted = feature::INDIRECT_DESC;
    if rings.event_idx == Wish::IfOffered {
        wanted |= feature::EVENT_IDX;
    }
    let features = transport.negotiate(wanted, required)?;
    let queues = transport.queue_count();
    if transport.queue_size(queues) != 0 {
        return Err(format!("queue {queues} of {queues} has a size"));
    }
    if queues > 0 {
        let shape = Shape::new(features, transport.queue_size(0), 1, 1)?;
        transport.enable_queue(0, &Queue::new(shape))?;
    }
    transport.driver_ok()?;
    transport.reset()?;
    Ok(format!(
        "{}, {queues} queues, {} vectors, features {features:#x}",
        type_name(transport.device_type()),
        transport.vectors
    ))
}
