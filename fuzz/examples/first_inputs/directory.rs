//! What Linux' driver asks of a shared directory (linux/fuse.h).

use crate::guest::{Guest, Rings};

const ROOT: u64 = 1;
/// The numbers of what is looked up and opened first.
const FIRST: u64 = 2;
const HANDLES: u64 = 6;

const READ: u32 = 15;
const WRITE: u32 = 16;

fn request(opcode: u32, node: u64, arguments: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((40 + arguments.len() as u32).to_le_bytes());
    bytes.extend(opcode.to_le_bytes());
    bytes.extend(77_u64.to_le_bytes());
    bytes.extend(node.to_le_bytes());
    bytes.extend([0; 16]);
    bytes.extend(arguments);
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_le_bytes()).collect()
}

fn init() -> Vec<u8> {
    request(26, 0, &[words(&[7, 38, 4096, u32::MAX]), words(&[u32::MAX; 1]), vec![0; 44]].concat())
}

/// A session of these requests: in the first queue for ordinary ones, with room for an answer.
fn session(rings: Rings, requests: &[Vec<u8>]) -> Vec<u8> {
    let guest = Guest::new(rings).chain(1, &[&init()], &[512]);
    let guest = requests.iter().fold(guest, |guest, request| {
        let opcode = u32::from_le_bytes([request[4], request[5], request[6], request[7]]);
        match opcode {
            2 | 36 | 42 => guest.chain(1, &[request], &[]),
            WRITE => guest.chain(1, &[request, &[9; 512]], &[512]),
            READ | 28 | 44 => guest.indirect(1, &[request], &[16, 4096]),
            _ => guest.chain(1, &[request], &[512]),
        }
    });
    guest.input()
}

pub(crate) fn fs() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for rings in [Rings::Split, Rings::Packed] {
        inputs.push(session(rings, &names()));
        inputs.push(session(rings, &attributes()));
        inputs.push(session(rings, &files()));
        inputs.push(session(rings, &directories()));
        inputs.push(session(rings, &wrong()));
        for handle in 0..HANDLES {
            inputs.push(session(rings, &of_handle(handle)));
        }
        inputs.push(ends(rings));
    }
    inputs
}

fn names() -> Vec<Vec<u8>> {
    let mkdir = |name: &[u8]| request(9, ROOT, &[&words(&[0o755, 0])[..], name].concat());
    let rename2 = |from: &[u8], to: &[u8], flags| {
        request(45, ROOT, &[&longs(&[ROOT])[..], &words(&[flags, 0]), from, to].concat())
    };
    vec![
        request(1, ROOT, b"a\0"),
        request(1, ROOT, b"none\0"),
        request(6, ROOT, b"s\0target\0"),
        request(8, ROOT, &[&words(&[0o100_644, 0, 0, 0])[..], b"n\0"].concat()),
        request(8, ROOT, &[&words(&[0o010_644, 0, 0, 0])[..], b"fifo\0"].concat()),
        request(8, ROOT, &[&words(&[0o020_644, 1, 0, 0])[..], b"device\0"].concat()),
        mkdir(b"e\0"),
        mkdir(b"e\0"),
        request(12, ROOT, &[&longs(&[ROOT])[..], b"n\0m\0"].concat()),
        rename2(b"m\0", b"a\0", 1),
        rename2(b"m\0", b"a\0", 2),
        rename2(b"m\0", b"k\0", 1),
        rename2(b"m\0", b"k\0", 99),
        request(13, ROOT, &[&longs(&[FIRST])[..], b"hard\0"].concat()),
        request(10, ROOT, b"hard\0"),
        request(11, ROOT, b"e\0"),
        request(51, ROOT, &words(&[2, 0o600, 0, 0])),
        request(2, FIRST, &longs(&[1])),
        request(42, 0, &[words(&[2, 0]), longs(&[FIRST, 1, FIRST + 1, 1])].concat()),
        request(36, 0, &longs(&[5])),
    ]
}

fn attributes() -> Vec<Vec<u8>> {
    let setattr = |node, valid: u32| {
        let mut bytes = words(&[valid, 0]);
        bytes.extend(longs(&[0, 3, 0, 1, 2, 3]));
        bytes.extend(words(&[4, 5, 6, 0o640, 0, 0, 0, 0]));
        request(4, node, &bytes)
    };
    let set = |flags, key: &[u8], value: &[u8]| {
        let sizes = words(&[value.len() as u32, flags]);
        request(21, FIRST, &[&sizes[..], key, value].concat())
    };
    vec![
        request(1, ROOT, b"a\0"),
        request(1, ROOT, b"l\0"),
        request(3, FIRST, &[words(&[0, 0]), longs(&[0])].concat()),
        request(3, FIRST, &[words(&[1, 0]), longs(&[0])].concat()),
        setattr(FIRST, 1),
        setattr(FIRST, 8),
        setattr(FIRST, 1 << 4 | 1 << 5),
        setattr(FIRST, 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8),
        setattr(FIRST, 6 | 1 << 11 | 8),
        setattr(FIRST, 8 | 1 << 6),
        request(5, FIRST + 1, b""),
        request(5, FIRST, b""),
        request(17, ROOT, b""),
        set(0, b"user.key\0", b"value"),
        set(1, b"user.key\0", b"value"),
        set(9, b"user.key\0", b"value"),
        request(22, FIRST, &[&words(&[64, 0])[..], b"user.key\0"].concat()),
        request(22, FIRST, &[&words(&[0, 0])[..], b"user.key\0"].concat()),
        request(23, FIRST, &words(&[64, 0])),
        request(23, FIRST, &words(&[0, 0])),
        request(24, FIRST, b"user.key\0"),
        request(24, FIRST, b"user.key\0"),
    ]
}

/// What is done with the handle of this number, whatever it is.
fn of_handle(handle: u64) -> Vec<Vec<u8>> {
    let transfer = |opcode, size: u32, flags: u32| {
        let mut bytes = longs(&[handle, 0]);
        bytes.extend(words(&[size, flags, 0, 0, 0, 0]));
        request(opcode, FIRST, &bytes)
    };
    let copy = [handle, 0, FIRST, handle, 100, 3, 0];
    let mut all = files();
    all.truncate(6);
    all.extend([
        transfer(WRITE, 512, 0),
        transfer(WRITE, 512, 4),
        transfer(READ, 512, 0),
        transfer(READ, 2 << 20, 0),
        request(20, FIRST, &[longs(&[handle]), words(&[0, 0])].concat()),
        request(20, FIRST, &[longs(&[handle]), words(&[1, 0])].concat()),
        request(43, FIRST, &[longs(&[handle, 0, 4096]), words(&[0, 0])].concat()),
        request(43, FIRST, &[longs(&[handle, 0, 4096]), words(&[99, 0])].concat()),
        request(46, FIRST, &[longs(&[handle, 0]), words(&[3, 0])].concat()),
        request(46, FIRST, &[longs(&[handle, 0]), words(&[4, 0])].concat()),
        request(46, FIRST, &[longs(&[handle, 0]), words(&[9, 0])].concat()),
        request(47, FIRST, &longs(&copy)),
        request(3, FIRST, &[words(&[1, 0]), longs(&[handle])].concat()),
        transfer(28, 4096, 0),
        transfer(44, 4096, 0),
        request(18, FIRST, &[longs(&[handle]), words(&[0, 0]), longs(&[0])].concat()),
        request(29, ROOT, &[longs(&[handle]), words(&[0, 0]), longs(&[0])].concat()),
    ]);
    all
}

fn files() -> Vec<Vec<u8>> {
    vec![
        request(1, ROOT, b"a\0"),
        request(14, FIRST, &words(&[2, 1])),
        request(35, ROOT, &[&words(&[0x42, 0o644, 0, 0])[..], b"new\0"].concat()),
        request(14, FIRST, &words(&[0, 0])),
        request(14, FIRST, &words(&[0x401, 0])),
        request(27, ROOT, &words(&[0, 0])),
    ]
}

fn directories() -> Vec<Vec<u8>> {
    let mut all = vec![request(1, ROOT, b"d\0"), request(27, ROOT, &words(&[0, 0]))];
    for handle in [0, 1, u64::MAX] {
        for (opcode, size) in [(28, 4096), (28, 30), (44, 4096), (44, 200)] {
            let mut bytes = longs(&[handle, 0]);
            bytes.extend(words(&[size, 0, 0, 0, 0, 0]));
            all.push(request(opcode, ROOT, &bytes));
        }
        all.push(request(30, ROOT, &[longs(&[handle]), words(&[0, 0])].concat()));
    }
    all.push(request(27, FIRST, &words(&[0, 0])));
    all
}

fn wrong() -> Vec<Vec<u8>> {
    let mut all: Vec<_> = (0..60).step_by(3).map(|opcode| request(opcode, 99, &[0; 8])).collect();
    all.push(request(1, ROOT, b"../x\0"));
    all.push(request(1, ROOT, b"no end"));
    all.push(request(26, 0, &words(&[6, 0, 0, 0])));
    all.push(request(26, 0, &words(&[8, 0, 0, 0])));
    all
}

/// A session that is interrupted, and one that never begins.
fn ends(rings: Rings) -> Vec<u8> {
    let mut long = request(3, ROOT, &[0; 16]);
    long[0] = 200;
    Guest::new(rings)
        .chain(1, &[&request(1, ROOT, b"a\0")], &[512])
        .chain(1, &[&init()], &[512])
        .chain(0, &[&request(2, FIRST, &longs(&[1]))], &[])
        .chain(1, &[&request(1, ROOT, b"a\0")], &[512])
        .chain(1, &[&request(14, FIRST, &words(&[2, 0]))], &[512])
        .silent(1, &[&request(9, ROOT, &[&words(&[0o755, 0])[..], b"e\0"].concat())], &[512])
        .die()
        .chain(1, &[&request(3, FIRST, &[0; 16])], &[512])
        .chain(1, &[&request(3, FIRST, &[0; 16])], &[20])
        .chain(1, &[&request(3, FIRST, &[0; 16])], &[])
        .chain(1, &[&long], &[512])
        .chain(1, &[&[1, 2, 3]], &[512])
        .pause()
        .chain(1, &[&request(38, 0, b"")], &[512])
        .chain(1, &[&request(3, ROOT, &[0; 16])], &[512])
        .reset()
        .chain(1, &[&init()], &[512])
        .input()
}
