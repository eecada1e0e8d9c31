//! Networks: address, link, commands, a frame that is sent; and the load that the command line asks
//! for.

use alloc::{format, string::String, vec::Vec};

use super::{Checked, pci::Devices};
use crate::{
    cmdline::{NetLoad, RingWishes, Wish},
    net::{
        load::{self, Outcome},
        nic::{
            Answer, Command, FEATURE_CTRL_MAC_ADDR, FEATURE_CTRL_RX, Nic, Pairs, SHORTEST_FRAME,
            Sending, Use,
        },
        pair::HEADER_BYTES,
    },
    pci::Function,
    platform::time,
    report::Report,
    virtio::{
        TYPE_NET,
        transport::{MODERN_ID, Transport},
    },
};

/// How long the configuration may go on showing an old address.
const SHOWN_SECONDS: u64 = 5;
const MULTICAST: u8 = 1;

/// Tries every network; needs nobody at its other end.
pub(super) fn check(devices: &Devices, rings: RingWishes, report: &mut Report) {
    for (index, function) in cards(devices).into_iter().enumerate() {
        report.check(&format!("net {index}"), check_card(devices, function, rings));
    }
}

fn check_card(devices: &Devices, function: Function, rings: RingWishes) -> Checked {
    let wanted = Use {
        rings,
        mergeable: Wish::IfOffered,
        pairs: Pairs::All,
        sending: Sending::OwnFrames,
        transmit_slots: 1,
        frame_bytes: SHORTEST_FRAME,
        buffer_bytes: HEADER_BYTES + 1518,
    };
    let mut nic = Nic::open(Transport::new(&*devices.space, function)?, wanted)?;
    let mac = nic.mac;
    if mac == [0; 6] || mac[0] & MULTICAST != 0 {
        return Err(format!("address {}", shown(mac)));
    }
    let link = if nic.link_is_up()? { "up" } else { "down" };
    let mtu = nic.mtu()?.map_or(String::new(), |mtu| format!(", MTU {mtu}"));
    nic.give_all();
    nic.greet()?;
    if nic.has_control() {
        check_commands(&mut nic)?;
    }
    let (pairs, features) = (nic.most_pairs, nic.features());
    nic.transport.reset()?;
    if !time::wait_for(SHOWN_SECONDS, || nic.current_mac() == Ok(mac)) {
        return Err(format!("address {} after a reset", shown(nic.current_mac()?)));
    }
    Ok(format!("{}, link {link}{mtu}, {pairs} queue pairs, features {features:#x}", shown(mac)))
}

fn check_commands(nic: &mut Nic) -> Result<(), String> {
    if nic.has(FEATURE_CTRL_RX) {
        for mode in [Command::PROMISCUOUS, Command::ALL_MULTICAST] {
            nic.expect(mode, &[0], Answer::Done)?;
            nic.expect(mode, &[1], Answer::Done)?;
            nic.expect(mode, &[7], Answer::Refused)?;
        }
        let one = |mac: [u8; 6]| [&1u32.to_le_bytes()[..], &mac].concat();
        let tables = [one(nic.mac), one([MULTICAST, 0, 0x5e, 0, 0, 1])].concat();
        nic.expect(Command::MAC_TABLE, &tables, Answer::Done)?;
        nic.expect(Command::MAC_TABLE, &tables[..tables.len() - 1], Answer::Refused)?;
    }
    if nic.has(FEATURE_CTRL_MAC_ADDR) {
        let other = [2, 1, 2, 3, 4, 5];
        nic.expect(Command::MAC_ADDRESS, &other, Answer::Done)?;
        if !time::wait_for(SHOWN_SECONDS, || nic.current_mac() == Ok(other)) {
            return Err(format!("address {} after it was set", shown(nic.current_mac()?)));
        }
        let own = nic.mac;
        nic.expect(Command::MAC_ADDRESS, &own, Answer::Done)?;
    }
    if nic.most_pairs > 1 {
        nic.expect(Command::PAIRS, &1u16.to_le_bytes(), Answer::Done)?;
        nic.expect(Command::PAIRS, &0u16.to_le_bytes(), Answer::Refused)?;
    }
    nic.expect(Command::UNKNOWN, &[], Answer::Refused)
}

/// Puts the chosen network under load.
pub(super) fn load(devices: &Devices, load: &NetLoad, rings: RingWishes, report: &mut Report) {
    let name = format!("net load {}", load.nic);
    let cards = cards(devices);
    let Some(function) = cards.get(load.nic) else {
        report.check(&name, Err(format!("no such network among {}", cards.len())));
        return;
    };
    let outcome = Transport::new(&*devices.space, *function)
        .and_then(|transport| Nic::open(transport, load::wanted(load, rings)))
        .and_then(|nic| load::run(nic, load));
    if let Ok(outcome) = &outcome {
        report.network(load, outcome);
    }
    report.check(&name, outcome.and_then(|outcome| judge(load, outcome)));
}

/// Frames may be lost and doubled on the way, but not changed; and something must have come through.
fn judge(load: &NetLoad, outcome: Outcome) -> Checked {
    let (sent, received) = (outcome.sent.frames, outcome.counts.frames);
    let operation = load.operation;
    if let Some(complaint) = outcome.complaint {
        return Err(format!("{} damaged frames, first: {complaint}", outcome.damaged));
    }
    if outcome.resets < load.resets {
        return Err(format!("{} of {} resets", outcome.resets, load.resets));
    }
    let wanted = load.frames.max(1);
    if operation.sends() && sent + outcome.dropped < wanted {
        return Err(format!("{sent} of {wanted} frames sent"));
    }
    if operation.receives() && received < wanted {
        return Err(format!("{received} of {wanted} frames received"));
    }
    Ok(format!("{sent} frames sent, {received} received"))
}

fn shown(mac: [u8; 6]) -> String {
    let parts: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}

fn cards(devices: &Devices) -> Vec<Function> {
    let is_card = |function: &&Function| {
        Transport::is_virtio(**function) && function.id == TYPE_NET + MODERN_ID
    };
    devices.functions.iter().filter(is_card).copied().collect()
}
