//! What drivers say to devices whose requests are short.

use crate::guest::{Guest, Rings};

const RINGS: [Rings; 2] = [Rings::Split, Rings::Packed];

/// Virtio 1.3 section 5.2.6.
pub(crate) fn blk() -> Vec<Vec<u8>> {
    let header =
        |kind: u32, sector: u64| [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
    let range = |sector: u64, sectors: u32, flags: u32| {
        [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    let all = |rings| {
        let data = [7; 512];
        Guest::new(rings)
            .chain(0, &[&header(0, 1)], &[512, 1])
            .indirect(0, &[&header(0, 8)], &[4096, 512, 1])
            .chain(0, &[&header(1, 3), &data], &[1])
            .indirect(0, &[&header(1, 0), &[1; 4096], &data], &[1])
            .chain(0, &[&header(4, 0)], &[1])
            .silent(0, &[&header(0, 2)], &[512, 1])
            .chain(0, &[&header(8, 0)], &[20, 1])
            .chain(0, &[&header(8, 0)], &[7, 1])
            .chain(0, &[&header(11, 0), &range(8, 8, 0)], &[1])
            .chain(0, &[&header(11, 0), &[range(0, 8, 0), range(16, 8, 0)].concat()], &[1])
            .chain(0, &[&header(13, 0), &range(8, 8, 1)], &[1])
            .chain(0, &[&header(13, 0), &range(24, 9, 0)], &[1])
            .chain(0, &[&header(13, 0), &[range(0, 1, 0), range(2, 3, 1)].concat()], &[1])
            .die()
            .pause()
            .write_config(32, &[0])
            .chain(0, &[&header(1, 3), &data], &[1])
            .chain(0, &[&header(13, 0), &range(24, 9, 0)], &[1])
            .write_config(32, &[1])
            .reset()
            .chain(0, &[&header(0, 1)], &[512, 1])
    };
    let wrong = |rings| {
        Guest::new(rings)
            .chain(0, &[&header(0, 1)], &[513, 1])
            .chain(0, &[&header(0, 1 << 40)], &[512, 1])
            .chain(0, &[&header(1, 127), &[7; 512], &[7; 512]], &[1])
            .chain(0, &[&header(99, 0)], &[1])
            .chain(0, &[&[1, 2, 3]], &[1])
            .chain(0, &[&header(0, 1)], &[1])
            .chain(0, &[&header(11, 0), &range(8, 8, 2)], &[1])
            .chain(0, &[&header(11, 0), &range(8, 8, 1)], &[1])
            .chain(0, &[&header(11, 0), &range(1 << 50, 8, 0)], &[1])
            .chain(0, &[&header(11, 0), &range(8, u32::MAX, 0)], &[1])
            .chain(0, &[&header(11, 0), &[0; 17]], &[1])
            .chain(0, &[&header(11, 0)], &[1])
            .chain(0, &[&header(13, 0), &[0; 512]], &[1])
            .chain(0, &[&header(13, 0), &range(8, 1 << 30, 0)], &[1])
            .nowhere(0, 16, 0)
    };
    let mut inputs = Vec::new();
    for rings in RINGS {
        inputs.push(all(rings).input_behind(0));
        inputs.push(all(rings).input_behind(1));
        inputs.extend([2, 4].map(|kind| all(rings).input_behind(kind)));
        // Somebody cuts the file.
        let cut = Guest::new(rings)
            .outside(&[3])
            .chain(0, &[&header(0, 1)], &[4096, 1])
            .chain(0, &[&header(0, 100)], &[4096, 1])
            .chain(0, &[&header(1, 100), &[1; 512]], &[1]);
        inputs.extend([0, 2, 4].map(|kind| cut.clone().input_behind(kind)));
        let outside = Guest::new(rings).without_memory(0, &header(0, 1));
        inputs.push(outside.chain(0, &[&header(0, 1)], &[512, 1]).input_behind(0));
        let limited = Guest::new(rings)
            .control(&[1])
            .chain(0, &[&header(0, 1)], &[4096, 1])
            .chain(0, &[&header(0, 1)], &[4096, 1])
            .control(&[4])
            .control(&[7, 8])
            .chain(0, &[&header(0, 7)], &[512, 1])
            .chain(0, &[&header(0, 8)], &[512, 1])
            .control(&[7, 0])
            .control(&[2])
            .control(&[5])
            .chain(0, &[&header(0, 1)], &[100, 412, 1])
            .chain(0, &[&header(1, 1), &[1; 100], &[2; 412]], &[1]);
        inputs.push(limited.clone().input_behind(0));
        inputs.push(limited.input_behind(2));
        inputs.push(wrong(rings).input_behind(0));
        // Without a flush and without a byte that says how writes go.
        let write_through = Guest::without(rings, 1 << 9 | 1 << 11 | 1 << 28 | 1 << 29);
        let write_through = write_through.chain(0, &[&header(1, 3), &[7; 512]], &[1]);
        let ranges = range(24, 9, 0);
        inputs.push(write_through.chain(0, &[&header(13, 0), &ranges], &[1]).input_behind(0));
    }
    inputs
}

/// Virtio 1.3 section 5.1.6: queue 0 receives, 1 sends, 2 takes commands.
#[expect(clippy::too_many_lines, reason = "one request after the other")]
pub(crate) fn net() -> Vec<Vec<u8>> {
    let frame =
        |header: [u8; 12]| [&header[..], &[0xff; 6], &[2, 0, 0, 0, 0, 1, 8, 0], &[0; 60]].concat();
    let tcp = [1, 1, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0];
    let udp = [1, 5, 42, 0, 100, 0, 34, 0, 6, 0, 0, 0];
    let arrives = |to: [u8; 6], length: u16| {
        [
            &length.to_le_bytes()[..],
            if length == 300 { &tcp } else { &[0; 12] },
            &to,
            &[2, 0, 0, 0, 0, 9, 8, 0],
            &vec![1; usize::from(length)][26..],
        ]
        .concat()
    };
    let (own, everybody, group) = ([2, 0, 0, 0, 0, 1], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]);
    let table = |addresses: &[[u8; 6]]| {
        [&(addresses.len() as u32).to_le_bytes()[..], addresses.as_flattened()].concat()
    };
    let commands = |guest: Guest| {
        let mut guest = guest;
        for number in 0..6 {
            guest = guest.chain(2, &[&[0, number], &[1]], &[1]).chain(2, &[&[0, number, 0]], &[1]);
            guest = guest.chain(2, &[&[0, number, 2]], &[1]);
        }
        let many = [[1, 0, 0, 0, 0, 1]; 40];
        let tables = [vec![1, 0], table(&[own]), table(&[group])].concat();
        let long = [vec![1, 0], table(&[]), table(&many)].concat();
        let offloads = |bits: u64| [&[5, 0], &bits.to_le_bytes()[..]].concat();
        guest
            .chain(2, &[&tables], &[1])
            .chain(2, &[&long], &[1])
            .chain(2, &[&[1, 0, 0xff, 0xff, 0, 0]], &[1])
            .chain(2, &[&[1, 1, 2, 0, 0, 0, 0, 5]], &[1])
            .chain(2, &[&[1, 1, 1, 0, 0, 0, 0, 5]], &[1])
            .chain(2, &[&[4, 0, 1, 0]], &[1])
            .chain(2, &[&[4, 0, 9, 0]], &[1])
            .chain(2, &[&offloads(1 << 1 | 1 << 7)], &[1])
            .chain(2, &[&offloads(0)], &[1])
            .chain(2, &[&offloads(u64::MAX)], &[1])
            .chain(2, &[&[9, 9]], &[1])
            .chain(2, &[&[1]], &[1])
    };
    let traffic = |guest: Guest| {
        guest
            .chain(0, &[], &[2048])
            .chain(0, &[], &[2048, 512])
            .indirect(0, &[], &[12, 2048])
            .silent(0, &[], &[512])
            .chain(0, &[], &[512])
            .outside(&arrives(own, 100))
            .outside(&arrives(everybody, 300))
            .outside(&arrives(group, 64))
            .outside(&arrives([2, 0, 0, 0, 0, 7], 64))
            .outside(&arrives(own, 1500))
            .outside(&[3, 0, 1, 2, 3])
            .chain(1, &[&frame([0; 12])], &[])
            .chain(1, &[&frame(tcp)], &[])
            .indirect(1, &[&udp, &frame([0; 12])[12..]], &[])
            .silent(1, &[&frame([0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])], &[])
            .chain(1, &[&frame([0, 9, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])], &[])
            .chain(1, &[&frame([1, 3, 42, 0, 100, 0, 34, 0, 6, 0, 0, 0])], &[])
            .chain(1, &[&frame([1, 4, 74, 0, 100, 0, 54, 0, 16, 0, 0, 0])], &[])
            .chain(1, &[&frame([1, 0x81, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0])], &[])
            .chain(1, &[&frame([1, 0x85, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0])], &[])
            .chain(1, &[&frame([1, 1, 54, 0, 0, 0, 34, 0, 16, 0, 0, 0])], &[])
            .chain(1, &[&frame([1, 0, 54, 0, 0, 0, 200, 0, 16, 0, 0, 0])], &[])
            .chain(1, &[&[1, 2, 3]], &[])
            .die()
            .outside(&arrives(own, 100))
            .chain(0, &[], &[2048])
            .chain(1, &[&frame([0; 12])], &[])
            .pause()
    };
    let mut inputs = Vec::new();
    for rings in RINGS {
        inputs.push(traffic(Guest::new(rings)).input());
        inputs.push(commands(Guest::new(rings)).input());
        let tables = [vec![1, 0], table(&[own]), table(&[group])].concat();
        let filtered = || {
            let guest = Guest::new(rings).chain(2, &[&[0, 0, 0]], &[1]).chain(2, &[&tables], &[1]);
            [own, everybody, group, [1; 6], [2; 6]]
                .iter()
                .fold(guest, |guest, to| guest.chain(0, &[], &[2048]).outside(&arrives(*to, 64)))
        };
        inputs.push(traffic(filtered()).input());
        for number in 1..6 {
            inputs.push(traffic(filtered().chain(2, &[&[0, number, 1]], &[1])).input());
        }
        let limited = |way| traffic(Guest::new(rings).control(&[way])).control(&[4]);
        inputs.extend([1, 2, 3, 5].map(|way| limited(way).control(&[6]).input()));
        // Two pairs: commands go to the queue behind them.
        let pairs = Guest::in_world(2, rings)
            .chain(4, &[&[4, 0, 2, 0]], &[1])
            .chain(4, &[&[4, 0, 3, 0]], &[1])
            .chain(2, &[], &[2048])
            .chain(3, &[&frame([0; 12])], &[])
            .chain(4, &[&[4, 0, 1, 0]], &[1]);
        inputs.push(traffic(pairs).input());
        // Without merged buffers, offloads and event indices.
        let plain = || Guest::without(rings, 0x7fff | 1 << 15 | 1 << 29 | 0b111 << 54);
        inputs.push(traffic(plain()).input());
        inputs.push(traffic(plain().chain(0, &[], &[12])).input());
        inputs.push(Guest::new(rings).chain(0, &[], &[4]).outside(&arrives(own, 64)).input());
        inputs.push(commands(Guest::without(rings, 1 << 2 | 1 << 18 | 1 << 20 | 1 << 23)).input());
    }
    inputs
}

/// Virtio 1.3 section 5.10.6: queue 0 receives, 1 sends, 2 is for events.
pub(crate) fn vsock() -> Vec<Vec<u8>> {
    // To port 1234 of the host, or back from 1024, where programs connect to.
    let packet = |(from, to): (u32, u32), kind: u16, op: u16, flags: u32, data: &[u8]| {
        let mut bytes = Vec::new();
        bytes.extend(7_u64.to_le_bytes());
        bytes.extend(2_u64.to_le_bytes());
        bytes.extend(from.to_le_bytes());
        bytes.extend(to.to_le_bytes());
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(op.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(4096_u32.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(data);
        bytes
    };
    let rooms = |mut guest: Guest| {
        for _ in 0..6 {
            guest = guest.chain(0, &[], &[44, 512]);
        }
        guest.chain(2, &[], &[4])
    };
    let mut inputs = Vec::new();
    for rings in RINGS {
        for kind in [1, 2] {
            // Those that the device takes in the worlds of these inputs.
            for host_port in [1_550_868_900, 1_263_762_014, 1_209_838_747] {
                let of = (1024, host_port);
                let answers = |guest: Guest| {
                    guest
                        .outside(&[0])
                        .outside(&[2, 5, b'h', b'e', b'l', b'l', b'o'])
                        .chain(1, &[&packet(of, kind, 2, 0, b"")], &[])
                        .chain(1, &[&packet(of, kind, 5, 1, b"hello")], &[])
                        .indirect(1, &[&packet(of, kind, 5, 0, b""), b"more"], &[])
                        .chain(1, &[&packet(of, kind, 6, 0, b"")], &[])
                        .chain(1, &[&packet(of, kind, 7, 0, b"")], &[])
                        .outside(&[2, 5, b'h', b'e', b'l', b'l', b'o'])
                        .chain(1, &[&packet(of, kind, 4, 2, b"")], &[])
                        .chain(1, &[&packet(of, kind, 4, 3, b"")], &[])
                        .outside(&[1])
                        .chain(1, &[&packet(of, kind, 3, 0, b"")], &[])
                };
                inputs.push(answers(rooms(Guest::new(rings))).input());
                inputs.push(answers(rooms(Guest::new(rings)).outside(&[0]).die()).pause().input());
            }
            let asks = (2048, 1234);
            let send = |op, flags, data: &[u8]| packet(asks, kind, op, flags, data);
            let hello = [2, 5, b'h', b'e', b'l', b'l', b'o'];
            // Somebody listens there: it is connected when something happens outside.
            let open =
                || rooms(Guest::new(rings)).chain(1, &[&send(1, 0, b"")], &[]).outside(&hello);
            let talk = open()
                .chain(1, &[&send(5, 0, b"data")], &[])
                .indirect(1, &[&send(5, 1, b"data")], &[])
                .outside(&hello)
                .chain(0, &[], &[44, 512])
                .chain(1, &[&send(6, 0, b"")], &[])
                .chain(1, &[&send(7, 0, b"")], &[])
                .outside(&hello)
                .chain(0, &[], &[44, 512])
                .chain(1, &[&send(4, 1, b"")], &[])
                .outside(&hello)
                .chain(1, &[&send(4, 2, b"")], &[]);
            inputs.push(talk.clone().outside(&[1]).input());
            inputs.push(talk.clone().pause().die().outside(&hello).input());
            inputs.push(open().outside(&[1]).chain(1, &[&send(5, 1, b"lost")], &[]).input());
            inputs.push(open().chain(1, &[&send(3, 0, b"")], &[]).input());
            inputs.push(open().chain(1, &[&send(9, 0, b"")], &[]).input());
            inputs.push(open().chain(1, &[&send(2, 0, b"")], &[]).input());
            // More than the host takes, and nobody there reads.
            let flood = (0..12).fold(open(), |guest, _| {
                let mut header = send(5, 0, b"");
                header[24..28].copy_from_slice(&12288_u32.to_le_bytes());
                guest.indirect(1, &[&header, &[1; 4096], &[2; 4096], &[3; 4096]], &[])
            });
            inputs.push(flood.outside(&[1]).input());
            let refused = packet((2048, 1235), kind, 1, 0, b"");
            let wrong = rooms(Guest::new(rings))
                .chain(1, &[&refused], &[])
                .outside(&hello)
                .chain(1, &[&send(5, 0, b"data")], &[])
                .chain(1, &[&packet(asks, 3, 1, 0, b"")], &[])
                .chain(1, &[&send(1, 0, b"data")], &[])
                .chain(1, &[&[0; 44]], &[])
                .chain(1, &[&[0; 10]], &[])
                .pause()
                .die();
            inputs.push(wrong.chain(1, &[&send(3, 0, b"")], &[]).input());
        }
    }
    inputs
}

/// Virtio 1.3 section 5.3.6: queues 0 and 1 are port 0's, 2 and 3 for control, 4 and 5 port 1's.
pub(crate) fn console() -> Vec<Vec<u8>> {
    let message = |port: u32, event: u16, value: u16| {
        [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
    };
    let mut inputs = Vec::new();
    for rings in RINGS {
        let guest = Guest::new(rings)
            .chain(2, &[], &[32])
            .chain(2, &[], &[32])
            .silent(2, &[], &[32])
            .chain(2, &[], &[32])
            .chain(3, &[&message(0, 0, 1)], &[])
            .chain(3, &[&message(0, 3, 1)], &[])
            .chain(2, &[], &[32])
            .chain(2, &[], &[32])
            .chain(3, &[&message(1, 3, 1)], &[])
            .chain(2, &[], &[32])
            .chain(2, &[], &[32])
            .chain(3, &[&message(0, 6, 1)], &[])
            .chain(3, &[&message(1, 6, 1)], &[])
            .chain(3, &[&message(1, 6, 0)], &[])
            .chain(3, &[&message(9, 6, 1)], &[])
            .chain(3, &[&message(0, 0, 0)], &[])
            .chain(3, &[&message(1, 3, 0)], &[])
            .chain(3, &[&message(0, 77, 0)], &[])
            .chain(3, &[&[1, 2]], &[])
            .chain(1, &[b"hello"], &[])
            .indirect(1, &[&[b'x'; 200], &[b'y'; 512]], &[])
            .chain(5, &[b"named"], &[])
            .chain(0, &[], &[64])
            .outside(&[2, 5, b'h', b'e', b'l', b'l', b'o'])
            .outside(&[2, 90])
            .chain(0, &[], &[16, 16])
            .chain(0, &[], &[16])
            .die()
            .outside(&[2, 5, b'h', b'e', b'l', b'l', b'o'])
            .chain(0, &[], &[64])
            .pause()
            .outside(&[1])
            .outside(&[0])
            .chain(1, &[b"gone"], &[])
            .control(&[8])
            .control(&[1]);
        inputs.push(guest.input());
        let short = Guest::new(rings).chain(2, &[], &[4]).chain(3, &[&message(0, 0, 1)], &[]);
        inputs.push(short.input());
        let simple = Guest::without(rings, 0b11).chain(1, &[b"hello"], &[]).chain(0, &[], &[64]);
        inputs.push(simple.outside(&[2, 3, 1, 2, 3]).chain(4, &[], &[64]).input());
        let mut flood = Guest::new(rings);
        for _ in 0..3 {
            flood = flood.chain(1, &[&[b'z'; 4096], &[b'z'; 4096]], &[]);
        }
        let reads = |guest: Guest| (0..8).fold(guest, |guest, _| guest.outside(&[2]));
        inputs.push(flood.clone().die().outside(&[0]).input());
        inputs.push(flood.clone().outside(&[0]).chain(1, &[&[b'z'; 4096]], &[]).input());
        inputs.push(reads(flood.clone()).pause().input());
        inputs.push(reads(flood.clone().outside(&[2]).die()).die().input());
        inputs.push(reads(flood.outside(&[2]).pause()).control(&[8]).input());
    }
    inputs
}

/// Virtio 1.3 section 5.5.6: queues for inflating, deflating, statistics and reports.
pub(crate) fn balloon() -> Vec<Vec<u8>> {
    let frames = |first: u32, count: u32| -> Vec<u8> {
        (first..first + count).flat_map(u32::to_le_bytes).collect()
    };
    let statistic = |tag: u16, value: u64| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
    let mut inputs = Vec::new();
    for rings in RINGS {
        let all: Vec<u8> = (0..18).flat_map(|tag| statistic(tag, 1 << tag)).collect();
        let guest = Guest::new(rings)
            .chain(0, &[&frames(192, 16)], &[])
            .indirect(0, &[&frames(208, 3), &frames(230, 2)], &[])
            .write_config(4, &[21, 0, 0, 0])
            .chain(1, &[&frames(192, 16)], &[])
            .chain(0, &[&frames(4000, 4)], &[])
            .chain(0, &[&[1, 2, 3]], &[])
            .chain(2, &[&all], &[])
            .ask_for_statistics()
            .chain(2, &[&statistic(4, 9)[..7]], &[])
            .ask_for_statistics()
            .ask_for_statistics()
            .chain(2, &[&statistic(5, 9)], &[])
            .chain(3, &[], &[4096])
            .indirect(3, &[], &[4096, 512, 4096])
            .nowhere(3, 200, 1)
            .die()
            .chain(0, &[&frames(192, 16)], &[])
            .pause()
            .control(&[9, 8])
            .control(&[9, 255])
            .write_config(12, &[1, 2, 3, 4])
            .reset()
            .chain(1, &[&frames(192, 1)], &[]);
        inputs.push(guest.input());
        let few =
            Guest::without(rings, 1 << 1 | 1 << 2).chain(2, &[], &[4096]).ask_for_statistics();
        inputs.push(few.chain(0, &[&frames(192, 1)], &[]).input());
        let wrong = Guest::new(rings).chain(0, &[], &[64]).chain(3, &[&[1; 64]], &[]);
        inputs.push(wrong.chain(2, &[], &[64]).ask_for_statistics().input());
    }
    inputs
}

/// Virtio 1.3 section 5.4.6.
pub(crate) fn rng() -> Vec<Vec<u8>> {
    let guest = |rings| {
        Guest::new(rings)
            .chain(0, &[], &[64])
            .indirect(0, &[], &[4096, 512, 1])
            .silent(0, &[], &[64])
            .chain(0, &[], &[64])
            .chain(0, &[&[1]], &[64])
            .die()
            .chain(0, &[], &[60000, 60000, 60000])
            .pause()
            .reset()
            .chain(0, &[], &[1])
            .control(&[1])
            .chain(0, &[], &[4096])
            .chain(0, &[], &[4096])
            .pause()
            .chain(0, &[], &[4096])
            .control(&[4])
            .control(&[5])
    };
    let mut inputs = RINGS.map(|rings| guest(rings).input()).to_vec();
    inputs.push(guest(Rings::Split).spoil(0, 1, 2, &[0xff, 0x7f]).input());
    inputs.extend(RINGS.map(|rings| Guest::new(rings).nowhere(0, 64, 1).input()));
    inputs.extend(RINGS.map(|rings| Guest::new(rings).chain(0, &[&[1]], &[]).input()));
    inputs
}

/// Virtio 1.3 section 5.19.6.
pub(crate) fn pmem() -> Vec<Vec<u8>> {
    let guest = |rings| {
        Guest::new(rings)
            .chain(0, &[&[0; 4]], &[4])
            .indirect(0, &[&[0; 4]], &[4])
            .silent(0, &[&[0; 4]], &[4])
            .chain(0, &[&[0; 4]], &[4])
            .chain(0, &[&[1, 0, 0, 0]], &[4])
            .chain(0, &[&[0; 2]], &[4])
            .die()
            .chain(0, &[&[0; 4]], &[3])
            .chain(0, &[&[0; 4]], &[4])
            .pause()
            .reset()
            .chain(0, &[&[0; 4]], &[])
    };
    RINGS.map(|rings| guest(rings).input()).to_vec()
}
