//! Block devices: identity, first sectors, refusals; and the load that the command line asks for.

use alloc::{format, string::String, vec::Vec};

use super::{Checked, pci::Devices};
use crate::{
    blk::{
        disk::{Disk, Request, SECTOR_BYTES, STATUS_IO_ERROR, STATUS_OK, STATUS_UNSUPPORTED, Use},
        load::{self, Outcome, Target},
    },
    cmdline::{Disks, Load, RingWishes},
    pci::Function,
    report::Report,
    text,
    virtio::{TYPE_BLOCK, transport::Transport},
};

const FIRST_BYTES: u64 = 4096;
const IDENTITY_BYTES: u32 = 20;

/// Reads from every disk; never writes.
pub(super) fn check(devices: &Devices, rings: RingWishes, report: &mut Report) {
    for (index, function) in disks(devices).into_iter().enumerate() {
        report.check(&format!("blk {index}"), check_disk(devices, function, rings));
    }
}

fn check_disk(devices: &Devices, function: Function, rings: RingWishes) -> Checked {
    let wanted =
        Use { rings, queues: 1, slots: 1, data_bytes: FIRST_BYTES as u32, data_segments: 1 };
    let mut disk = Disk::open(Transport::new(&*devices.space, function)?, wanted)?;
    expect(&mut disk, Request::Identify, 0, IDENTITY_BYTES, STATUS_OK)?;
    let mut identity = [0; IDENTITY_BYTES as usize];
    for (offset, byte) in identity.iter_mut().enumerate() {
        *byte = disk.lanes[0].data(0).read(offset as u64);
    }
    let bytes = FIRST_BYTES.min(disk.sectors * SECTOR_BYTES) as u32;
    if bytes > 0 {
        expect(&mut disk, Request::Read, 0, bytes, STATUS_OK)?;
    }
    let end = disk.sectors;
    expect(&mut disk, Request::Read, end, FIRST_BYTES as u32, STATUS_IO_ERROR)?;
    expect(&mut disk, Request::Unknown, 0, 0, STATUS_UNSUPPORTED)?;
    disk.transport.reset()?;
    let mode = if disk.is_read_only() { ", read-only" } else { "" };
    Ok(format!("\"{}\" {}{mode}", text::printable(&identity), text::bytes(end * SECTOR_BYTES)))
}

fn expect(
    disk: &mut Disk,
    request: Request,
    sector: u64,
    bytes: u32,
    expected: u8,
) -> Result<(), String> {
    match disk.execute(request, sector, bytes)? {
        status if status == expected => Ok(()),
        status => Err(format!("{request:?} of {bytes} bytes at sector {sector}: status {status}")),
    }
}

/// Puts the chosen disks under load, all at the same time.
pub(super) fn load(devices: &Devices, load: &Load, rings: RingWishes, report: &mut Report) {
    let all = disks(devices);
    let chosen: Vec<usize> = match load.disks {
        Disks::All => (0..all.len()).collect(),
        Disks::One(index) => (index..all.len()).take(1).collect(),
    };
    if chosen.is_empty() {
        report.check("load", Err(format!("no such disk among {}", all.len())));
    }
    let mut ready = Vec::new();
    let mut targets = Vec::new();
    for index in chosen {
        match prepare(devices, all[index], load, rings) {
            Ok(target) => {
                ready.push(index);
                targets.push(target);
            }
            Err(error) => report.check(&format!("load {index}"), Err(error)),
        }
    }
    for (index, outcome) in ready.into_iter().zip(load::run(targets, load.milliseconds)) {
        if let Ok(outcome) = &outcome {
            report.load(index, load, outcome);
        }
        report.check(&format!("load {index}"), outcome.and_then(judge));
    }
}

fn prepare(
    devices: &Devices,
    function: Function,
    load: &Load,
    rings: RingWishes,
) -> Result<Target, String> {
    let transport = Transport::new(&*devices.space, function)?;
    let wanted = Use {
        rings,
        queues: load.queues,
        slots: load.depth,
        data_bytes: load.block_bytes,
        data_segments: load.segments,
    };
    Target::new(Disk::open(transport, wanted)?, load)
}

fn judge(outcome: Outcome) -> Checked {
    let Outcome { requests, errors, verify_failures, complaint, .. } = outcome;
    match complaint {
        Some(complaint) => {
            Err(format!("{errors} errors, {verify_failures} verify failures, first: {complaint}"))
        }
        None if requests == 0 => Err("no request finished".into()),
        None => Ok(format!("{requests} requests")),
    }
}

fn disks(devices: &Devices) -> Vec<Function> {
    let is_disk = |function: &&Function| {
        Transport::is_virtio(**function)
            && function.id == TYPE_BLOCK + crate::virtio::transport::MODERN_ID
    };
    devices.functions.iter().filter(is_disk).copied().collect()
}
