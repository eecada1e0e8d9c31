//! The command line: words that choose what the run does. A word that is not known fails the run.
//!
//! ```text
//! check=LIST          cpu,memory,timer,processors,acpi,pci,virtio,blk,net (default: all)
//! blk=OP              load disks: read, write, rw, verify (the last three write to the disk)
//! order=O             random (default) or sequential
//! depth=N bs=BYTES    requests in flight for each queue (32), bytes of each (4096)
//! segments=N          data descriptors of each request (1)
//! flush=N             a flush after every N writes (0: none)
//! seconds=N ms=N      how long (1), in seconds or milliseconds; the key q ends a load earlier
//! span=MIB            how much of the disk (0: all; verify: 16)
//! disk=N|all queues=N which disks (0), how many queues of each (1)
//! pauses=N            report the N longest times without a finished request (0)
//! net=OP              load a network: send, receive, echo, both (send and receive)
//! frames=N bytes=N    as many frames each way (0: until the time is over), bytes of each (1514)
//! buffer=BYTES        receive buffers of that size (2048); mergeable=off: a frame in each
//! resets=N nic=N      reset the device N times, spread over frames or time (0); which network (0)
//!                     depth, seconds, queues (here pairs) and pauses hold for networks, too
//! ring=packed         packed rings; indirect=off, event-idx=off: without that feature
//! hold=SECONDS        stay up that long before the end
//! json                the report as one line of JSON
//! panic reboot triple how a run that succeeded ends, instead of powering off
//! ```

mod net;

use alloc::{format, string::String, vec::Vec};

pub(crate) use self::net::{NetLoad, NetOperation};

/// A check that can be chosen, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Cpu,
    Timer,
    Acpi,
    Memory,
    Processors,
    Pci,
    Virtio,
    Blk,
    Net,
}

const CHECKS: [(&str, Check); 9] = [
    ("cpu", Check::Cpu),
    ("timer", Check::Timer),
    ("acpi", Check::Acpi),
    ("memory", Check::Memory),
    ("processors", Check::Processors),
    ("pci", Check::Pci),
    ("virtio", Check::Virtio),
    ("blk", Check::Blk),
    ("net", Check::Net),
];

/// The checks to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checks(u16);

impl Checks {
    const ALL: Self = Self(0x1ff);

    pub(crate) fn has(self, check: Check) -> bool {
        self.0 & 1 << check as u8 != 0
    }
}

/// What the block load does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
    /// As many reads as writes.
    Mixed,
    /// Writes what can be told from the block and its generation, and reads it back.
    Verify,
}

impl Operation {
    pub(crate) fn writes(self) -> bool {
        self != Self::Read
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Random,
    Sequential,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disks {
    One(usize),
    All,
}

/// The block load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) operation: Operation,
    pub(crate) order: Order,
    /// Requests in flight for each queue.
    pub(crate) depth: u16,
    pub(crate) block_bytes: u32,
    /// Data descriptors of a request.
    pub(crate) segments: u16,
    /// Writes between two flushes; 0 for none.
    pub(crate) flush_every: u64,
    pub(crate) milliseconds: u64,
    /// MiB of the disk to use; 0 for all of it.
    pub(crate) span_mib: u64,
    pub(crate) disks: Disks,
    /// Queues of each disk.
    pub(crate) queues: u16,
    /// How many of the longest pauses are reported.
    pub(crate) pauses: usize,
}

/// Features that the drivers ask for when the device has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingWishes {
    pub(crate) layout: RingLayout,
    pub(crate) indirect: Wish,
    pub(crate) event_idx: Wish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RingLayout {
    Split,
    Packed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    IfOffered,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportFormat {
    Text,
    Json,
}

/// How a run that succeeded ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    PowerOff,
    Panic,
    Reset,
    TripleFault,
}

/// The whole command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) checks: Checks,
    pub(crate) load: Option<Load>,
    pub(crate) net: Option<NetLoad>,
    pub(crate) rings: RingWishes,
    pub(crate) hold_seconds: u64,
    pub(crate) format: ReportFormat,
    pub(crate) ending: Ending,
}

impl Options {
    /// What an empty command line means.
    pub(crate) const DEFAULT: Self = Self {
        checks: Checks::ALL,
        load: None,
        net: None,
        rings: RingWishes {
            layout: RingLayout::Split,
            indirect: Wish::IfOffered,
            event_idx: Wish::IfOffered,
        },
        hold_seconds: 0,
        format: ReportFormat::Text,
        ending: Ending::PowerOff,
    };

    const DEFAULT_LOAD: Load = Load {
        operation: Operation::Read,
        order: Order::Random,
        depth: 32,
        block_bytes: 4096,
        segments: 1,
        flush_every: 0,
        milliseconds: 1000,
        span_mib: 0,
        disks: Disks::One(0),
        queues: 1,
        pauses: 0,
    };

    /// Reads a command line; the error names the word.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        let mut options = Self::DEFAULT;
        let (mut load, mut net) = (Self::DEFAULT_LOAD, NetLoad::DEFAULT);
        let (mut operation, mut net_operation) = (None, None);
        // Words that only loads take, and which of them: blk, net.
        let mut load_words = Vec::new();
        for word in line.split_ascii_whitespace() {
            let refuse =
                |refusal: Refusal| format!("command line word `{word}`: {}", refusal.reason());
            let (name, value) =
                word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let Some(value) = value else {
                options.apply_flag(name).map_err(refuse)?;
                continue;
            };
            match name {
                "blk" => operation = Some(operation_named(value).map_err(refuse)?),
                "net" => net_operation = Some(NetOperation::named(value).map_err(refuse)?),
                _ => match (load.apply(name, value), net.apply(name, value)) {
                    (Err(Refusal::UnknownWord), Err(Refusal::UnknownWord)) => {
                        options.apply(name, value).map_err(refuse)?;
                    }
                    (blk, net) => load_words.push((word, blk, net)),
                },
            }
        }
        options.load = operation.map(|operation| Load { operation, ..load });
        options.net = net_operation.map(|operation| NetLoad { operation, ..net });
        for (word, blk, net) in load_words {
            let takers =
                [("blk=", options.load.is_some(), blk), ("net=", options.net.is_some(), net)];
            judge_load_word(word, takers)?;
        }
        Ok(options)
    }

    fn apply_flag(&mut self, name: &str) -> Result<(), Refusal> {
        match name {
            "json" => self.format = ReportFormat::Json,
            "panic" => self.ending = Ending::Panic,
            "reboot" => self.ending = Ending::Reset,
            "triple" => self.ending = Ending::TripleFault,
            _ => return Err(Refusal::UnknownWord),
        }
        Ok(())
    }

    fn apply(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match (name, value) {
            ("check", list) => self.checks = checks_named(list)?,
            ("hold", seconds) => self.hold_seconds = number(seconds, 0, 1_000_000)?,
            ("ring", "split") => self.rings.layout = RingLayout::Split,
            ("ring", "packed") => self.rings.layout = RingLayout::Packed,
            ("indirect", "off") => self.rings.indirect = Wish::Off,
            ("event-idx", "off") => self.rings.event_idx = Wish::Off,
            ("ring" | "indirect" | "event-idx", _) => return Err(Refusal::UnknownValue),
            _ => return Err(Refusal::UnknownWord),
        }
        Ok(())
    }
}

impl Load {
    fn apply(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match (name, value) {
            ("order", "random") => self.order = Order::Random,
            ("order", "sequential") => self.order = Order::Sequential,
            ("order", _) => return Err(Refusal::UnknownValue),
            ("depth", _) => self.depth = number(value, 1, 1024)? as u16,
            ("bs", _) => self.block_bytes = number(value, 512, 4 << 20)? as u32,
            ("segments", _) => self.segments = number(value, 1, 16)? as u16,
            ("flush", _) => self.flush_every = number(value, 0, u64::MAX)?,
            ("seconds", _) => self.milliseconds = number(value, 1, 1_000_000)? * 1000,
            ("ms", _) => self.milliseconds = number(value, 1, 1_000_000)?,
            ("span", _) => self.span_mib = number(value, 0, 1 << 40)?,
            ("disk", "all") => self.disks = Disks::All,
            ("disk", _) => self.disks = Disks::One(number(value, 0, 255)? as usize),
            ("queues", _) => self.queues = number(value, 1, 64)? as u16,
            ("pauses", _) => self.pauses = number(value, 0, 1024)? as usize,
            _ => return Err(Refusal::UnknownWord),
        }
        Ok(())
    }
}

/// Why a word is not taken.
enum Refusal {
    UnknownWord,
    UnknownValue,
    NotInRange,
}

impl Refusal {
    fn reason(&self) -> &'static str {
        match self {
            Self::UnknownWord => "unknown",
            Self::UnknownValue => "unknown value",
            Self::NotInRange => "not a number in range",
        }
    }
}

/// A word of loads is good if a load that was chosen takes it, and none refuses its value.
fn judge_load_word(
    word: &str,
    takers: [(&str, bool, Result<(), Refusal>); 2],
) -> Result<(), String> {
    let mut taken = false;
    let mut others = Vec::new();
    for (load, chosen, result) in takers {
        match result {
            Err(Refusal::UnknownWord) => {}
            _ if !chosen => others.push(load),
            Ok(()) => taken = true,
            Err(refusal) => {
                return Err(format!("command line word `{word}`: {}", refusal.reason()));
            }
        }
    }
    if taken {
        return Ok(());
    }
    Err(format!("command line word `{word}` means nothing without {}", others.join(" or ")))
}

fn operation_named(name: &str) -> Result<Operation, Refusal> {
    match name {
        "read" => Ok(Operation::Read),
        "write" => Ok(Operation::Write),
        "rw" => Ok(Operation::Mixed),
        "verify" => Ok(Operation::Verify),
        _ => Err(Refusal::UnknownValue),
    }
}

fn checks_named(list: &str) -> Result<Checks, Refusal> {
    let mut chosen = 0;
    for name in list.split(',') {
        let (_, check) =
            CHECKS.iter().find(|(known, _)| *known == name).ok_or(Refusal::UnknownValue)?;
        chosen |= 1 << *check as u8;
    }
    Ok(Checks(chosen))
}

fn number(text: &str, least: u64, most: u64) -> Result<u64, Refusal> {
    text.parse().ok().filter(|value| (least..=most).contains(value)).ok_or(Refusal::NotInRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_line_runs_all_checks_and_no_load() {
        let options = Options::parse("  ").unwrap();
        assert_eq!(options, Options::DEFAULT);
        assert!(CHECKS.iter().all(|(_, check)| options.checks.has(*check)));
    }

    #[test]
    fn a_load_takes_its_words_in_any_order() {
        let options = Options::parse("depth=4 disk=all blk=verify bs=512 flush=8 json").unwrap();
        let load = options.load.unwrap();
        assert_eq!((load.operation, load.depth, load.block_bytes), (Operation::Verify, 4, 512));
        assert_eq!((load.disks, load.flush_every), (Disks::All, 8));
        assert_eq!(options.format, ReportFormat::Json);
    }

    #[test]
    fn chosen_checks_exclude_the_others() {
        let options = Options::parse("check=cpu,pci").unwrap();
        assert!(options.checks.has(Check::Cpu) && options.checks.has(Check::Pci));
        assert!(!options.checks.has(Check::Memory) && !options.checks.has(Check::Blk));
    }

    #[test]
    fn endings_and_ring_words_are_taken() {
        for (word, ending) in
            [("panic", Ending::Panic), ("reboot", Ending::Reset), ("triple", Ending::TripleFault)]
        {
            assert_eq!(Options::parse(word).unwrap().ending, ending);
        }
        let rings = Options::parse("ring=packed indirect=off event-idx=off").unwrap().rings;
        assert_eq!(rings.layout, RingLayout::Packed);
        assert_eq!((rings.indirect, rings.event_idx), (Wish::Off, Wish::Off));
    }

    #[test]
    fn every_refusal_names_the_word() {
        for word in [
            "frobnicate",
            "frob=1",
            "json=1",
            "blk=eat",
            "blk",
            "depth=0",
            "depth=-1",
            "depth=99999",
            "bs=1x",
            "check=cpu,gpu",
            "check=",
            "ring=round",
            "disk=some",
            "seconds=",
        ] {
            let line = format!("blk=read {word}");
            let error = Options::parse(&line).unwrap_err();
            assert!(error.contains(&format!("`{word}`")), "{error}");
        }
    }

    #[test]
    fn load_words_without_a_load_are_refused() {
        let depth = Options::parse("depth=4").unwrap_err();
        assert!(depth.contains("`depth=4`") && depth.contains("blk= or net="), "{depth}");
        let frames = Options::parse("blk=read frames=4").unwrap_err();
        assert!(frames.contains("`frames=4`") && frames.ends_with("net="), "{frames}");
        assert!(Options::parse("net=send bs=512").unwrap_err().ends_with("blk="));
    }

    #[test]
    fn words_of_both_loads_hold_for_both() {
        let options = Options::parse("depth=4 net=both blk=read frames=9 seconds=2").unwrap();
        let net = options.net.unwrap();
        assert_eq!((net.depth, net.frames, net.seconds), (4, 9, 2));
        assert_eq!(options.load.unwrap().depth, 4);
        assert!(Options::parse("net=send queues=20").unwrap_err().contains("in range"));
        assert!(Options::parse("blk=read queues=20").is_ok());
    }
}
