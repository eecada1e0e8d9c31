//! What front ends say over vhost-user, as `src/vhost_user.rs` reads it.

/// What comes beside a message.
#[derive(Debug, Clone, Copy)]
enum Beside {
    Nothing = 0,
    Event = 2,
    Memory = 4,
    TwoMemories = 6,
    EightEvents = 7,
}

const ANSWER: u8 = 8;

#[derive(Debug, Default, Clone)]
struct Talk(Vec<u8>);

impl Talk {
    fn say(mut self, request: u8, beside: Beside, payload: &[u8]) -> Self {
        self.0.extend([request, beside as u8, payload.len() as u8]);
        self.0.extend(payload);
        self
    }

    /// The same, and wants to know how it went.
    fn ask(mut self, request: u8, beside: Beside, payload: &[u8]) -> Self {
        self.0.extend([request, beside as u8 | ANSWER, payload.len() as u8]);
        self.0.extend(payload);
        self
    }

    fn long(self, request: u8, number: u64) -> Self {
        self.say(request, Beside::Nothing, &number.to_le_bytes())
    }

    fn words(self, request: u8, words: &[u32]) -> Self {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.say(request, Beside::Nothing, &bytes)
    }
}

const FEATURES: u64 = 1 << 28 | 1 << 29 | 1 << 30 | 1 << 32;
const MEMORY_BYTES: u64 = 256 << 10;
const USER: u64 = 0x7000_0000;

fn region(guest: u64, size: u64) -> Vec<u8> {
    [guest, size, USER + guest, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn table(regions: &[Vec<u8>]) -> Vec<u8> {
    [&(regions.len() as u32).to_le_bytes()[..], &[0; 4], &regions.concat()].concat()
}

fn addresses(index: u32) -> Vec<u8> {
    let places = [USER + 0x1000, USER + 0x3000, USER + 0x2000, 0];
    let places = places.iter().flat_map(|place| place.to_le_bytes());
    [&index.to_le_bytes()[..], &[0; 4], &places.collect::<Vec<_>>()].concat()
}

/// All that QEMU says up to a ring that runs.
fn started(features: u64) -> Talk {
    Talk::default()
        .say(3, Beside::Nothing, &[])
        .say(1, Beside::Nothing, &[])
        .say(15, Beside::Nothing, &[])
        .long(16, u64::MAX)
        .say(17, Beside::Nothing, &[])
        .say(36, Beside::Nothing, &[])
        .long(2, features)
        .ask(5, Beside::Memory, &table(&[region(0, MEMORY_BYTES)]))
        .words(8, &[0, 8])
        .words(10, &[0, 0])
        .ask(9, Beside::Nothing, &addresses(0))
        .say(12, Beside::Event, &0_u64.to_le_bytes())
        .say(13, Beside::Event, &0_u64.to_le_bytes())
        .say(14, Beside::Event, &0_u64.to_le_bytes())
        .words(18, &[0, 1])
}

fn config(offset: u32, size: u32) -> Vec<u8> {
    let words = [offset, size, 0].map(u32::to_le_bytes);
    [words.as_flattened(), &vec![1; size.min(64) as usize]].concat()
}

fn single(region: &[u8]) -> Vec<u8> {
    [&[0; 8], region].concat()
}

fn inflight(size: u64) -> Vec<u8> {
    [&size.to_le_bytes()[..], &[0; 8], &[1, 0, 8, 0, 0, 0, 0, 0]].concat()
}

pub(crate) fn vhost_user() -> Vec<Vec<u8>> {
    let packed = FEATURES | 1 << 34;
    let live = started(FEATURES)
        .words(18, &[0, 0])
        .words(18, &[0, 1])
        .ask(24, Beside::Nothing, &config(0, 8))
        .ask(24, Beside::Nothing, &config(0, 0))
        .ask(25, Beside::Nothing, &config(0, 4))
        .words(11, &[0, 0])
        .words(10, &[0, 5])
        .say(12, Beside::Event, &0_u64.to_le_bytes())
        .ask(37, Beside::Memory, &single(&region(1 << 20, 4096)))
        .ask(38, Beside::Nothing, &single(&region(1 << 20, 4096)))
        .say(31, Beside::Nothing, &inflight(0))
        .ask(34, Beside::Nothing, &[]);
    let wrong = |talk: fn(Talk) -> Talk| talk(started(FEATURES)).0;
    let again = started(packed).say(4, Beside::Nothing, &[]).0;
    let kick_less = started(1 << 32).say(12, Beside::Nothing, &0x100_u64.to_le_bytes()).say(
        13,
        Beside::Nothing,
        &0x100_u64.to_le_bytes(),
    );
    vec![
        live.0.clone(),
        started(packed).0,
        [again.clone(), again].concat(),
        kick_less.0,
        live.say(32, Beside::Memory, &inflight(MEMORY_BYTES)).0,
        wrong(|talk| talk.words(18, &[9, 1])),
        wrong(|talk| talk.words(8, &[0, 7])),
        wrong(|talk| talk.words(8, &[0, 0xffff])),
        wrong(|talk| talk.words(10, &[0, 0xffff_ffff])),
        wrong(|talk| talk.ask(9, Beside::Nothing, &[1; 40])),
        wrong(|talk| talk.say(12, Beside::EightEvents, &[0; 8])),
        wrong(|talk| talk.say(12, Beside::Event, &[9; 8])),
        wrong(|talk| talk.say(5, Beside::TwoMemories, &table(&[region(0, MEMORY_BYTES)]))),
        wrong(|talk| {
            let two = [region(0, 4096), region(4096, 4096)];
            talk.say(5, Beside::TwoMemories, &table(&two))
        }),
        wrong(|talk| {
            let two = [region(0, 4096), region(0, 4096)];
            talk.say(5, Beside::TwoMemories, &table(&two))
        }),
        wrong(|talk| talk.say(5, Beside::Memory, &table(&[region(0, 1 << 40)]))),
        wrong(|talk| talk.say(5, Beside::Memory, &[200, 0, 0, 0, 0, 0, 0, 0])),
        wrong(|talk| talk.ask(38, Beside::Nothing, &single(&region(5, 5)))),
        wrong(|talk| talk.ask(24, Beside::Nothing, &config(0, 5000))),
        wrong(|talk| talk.ask(24, Beside::Nothing, &[1])),
        wrong(|talk| talk.ask(25, Beside::Nothing, &config(9000, 4))),
        wrong(|talk| talk.words(11, &[9, 0])),
        wrong(|talk| talk.say(47, Beside::Nothing, &[])),
        wrong(|talk| {
            (0..9).fold(talk, |talk, at| {
                talk.ask(37, Beside::Memory, &single(&region((at + 1) << 20, 4096)))
            })
        }),
    ]
}
