//! Networks: rounds of all contestants each way and with each length of frames.

use std::fmt::Write as _;

use loadgen::flood::{flooded, leave_network};
use loadgen::frames::{Direction, Frames, plain_loop};
use loadgen::stream::Stream;
use loadgen::virtio_net::VirtioNet;
use loadgen::{Figures, LoadError, Polling};
use serde::Serialize;

use super::contestant::{Contestant, Service};
use super::error::BenchError;
use super::result::{Line, Measured, fastest, rounded};
use super::streams::{self, StreamResult};
use crate::folder::Folder;

/// The tap of the plain loop.
pub(super) const PLAIN: &str = "plain0";
/// The tap of back ends.
pub(super) const TAP: &str = "bench0";

/// What is to be measured.
#[derive(Debug)]
pub struct NetBench {
    /// All but the way and the length.
    pub frames: Frames,
    /// Ways, one after the other.
    pub ways: Vec<Direction>,
    /// Bytes of single frames, one after the other.
    pub lengths: Vec<u16>,
    /// All of streams but the way, if there are to be any.
    pub streams: Option<Stream>,
    /// Rounds of each.
    pub rounds: u32,
    /// Whom to hold ours against.
    pub against: Vec<Contestant>,
}

/// All contestants one way with one length.
#[derive(Debug, Clone)]
struct NetResult {
    frames: Frames,
    ours: Measured,
    without_polling: Option<Measured>,
    peers: Vec<Measured>,
    plain: Measured,
}

/// All ways and lengths, and streams.
#[derive(Debug, Clone)]
pub struct NetResults {
    frames: Vec<NetResult>,
    streams: Vec<StreamResult>,
}

/// Measures; says with each run who is running. It needs the right to make networks.
pub fn run_net(bench: &NetBench, progress: &dyn Fn(&str)) -> Result<NetResults, BenchError> {
    leave_network().map_err(BenchError::host("make a network of its own"))?;
    let folder = Folder::create().map_err(BenchError::host("make a folder for sockets"))?;
    let ours = Contestant::our_network()?;
    let mut results = NetResults { frames: Vec::new(), streams: Vec::new() };
    for &direction in &bench.ways {
        for &bytes in &bench.lengths {
            let frames = Frames { direction, bytes, ..bench.frames };
            results.frames.push(one(bench, frames, &ours, &folder, progress)?);
        }
        if let Some(stream) = bench.streams {
            let stream = Stream { direction, ..stream };
            let (rounds, against) = (bench.rounds, &bench.against);
            let result = streams::one(stream, rounds, &ours, against, &folder, progress)?;
            results.streams.push(result);
        }
    }
    Ok(results)
}

fn one(
    bench: &NetBench,
    frames: Frames,
    ours: &Contestant,
    folder: &Folder,
    progress: &dyn Fn(&str),
) -> Result<NetResult, BenchError> {
    let silent = Frames { polling: Polling::Off, ..frames };
    let (mut plain, mut polling, mut sleeping) = (Vec::new(), Vec::new(), Vec::new());
    let mut peers = vec![Vec::new(); bench.against.len()];
    for round in 1..=bench.rounds {
        let (way, bytes) = (word(frames.direction), frames.bytes);
        let say = |who: &str| {
            progress(&format!("{way} {bytes}, round {round} of {}: {who}", bench.rounds));
        };
        say("plain loop");
        let figures = loaded(PLAIN, &frames, || plain_loop(PLAIN, &frames));
        let name = || "the plain loop".to_owned();
        plain.push(figures.map_err(|source| BenchError::Load { name: name(), source })?);
        say(&ours.name);
        polling.push(serve(ours, frames, folder)?);
        if frames.polling != Polling::Off {
            say("vmm without polling");
            sleeping.push(serve(ours, silent, folder)?);
        }
        for (peer, rounds) in bench.against.iter().zip(&mut peers) {
            say(&peer.name);
            rounds.push(serve(peer, frames, folder)?);
        }
    }
    let nothing = BenchError::no_round;
    let peers = bench.against.iter().zip(peers);
    Ok(NetResult {
        frames,
        ours: Measured::of(&ours.name, polling).ok_or_else(nothing)?,
        without_polling: Measured::of("vmm, driver sleeps", sleeping),
        peers: peers.filter_map(|(peer, rounds)| Measured::of(&peer.name, rounds)).collect(),
        plain: Measured::of("plain loop", plain).ok_or_else(nothing)?,
    })
}

/// One run against a back end that is started for it.
fn serve(contestant: &Contestant, frames: Frames, folder: &Folder) -> Result<Figures, BenchError> {
    let (mut service, connection) = contestant.start(TAP, &folder.file("socket"), 1)?;
    let process = service.process();
    let load = loaded(TAP, &frames, || VirtioNet::new(connection, frames)?.run(process));
    Service::judge(std::slice::from_mut(&mut service), contestant, load)
}

/// Where frames are received, somebody has to send them.
fn loaded(
    tap: &str,
    frames: &Frames,
    work: impl FnOnce() -> Result<Figures, LoadError> + Send,
) -> Result<Figures, LoadError> {
    match frames.direction {
        Direction::Send => work(),
        Direction::Receive => flooded(tap, frames, work),
    }
}

pub(super) fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Send => "send",
        Direction::Receive => "receive",
    }
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    way: &'static str,
    bytes: u16,
    depth: u16,
    frames_per_s: u64,
    ratio_plain: f64,
    ratio_peer: Option<f64>,
    /// Processor time for each frame, ours to that of the plain loop.
    cpu_ratio_plain: f64,
    cpu_us_per_frame: f64,
    syscalls_per_frame: Option<f64>,
    without_polling: Option<Line<'a>>,
    plain: Line<'a>,
    peers: Vec<Line<'a>>,
}

#[derive(Debug, Serialize)]
struct All<'a> {
    results: Vec<Entry<'a>>,
    streams: Vec<streams::Entry<'a>>,
}

impl<'a> From<&'a NetResult> for Entry<'a> {
    fn from(result: &'a NetResult) -> Self {
        let NetResult { frames, ours, without_polling, peers, plain } = result;
        Self {
            way: word(frames.direction),
            bytes: frames.bytes,
            depth: frames.depth,
            frames_per_s: ours.rate() as u64,
            ratio_plain: rounded(ours.rate() / plain.rate()),
            ratio_peer: fastest(peers).map(|best| rounded(ours.rate() / best.rate())),
            cpu_ratio_plain: rounded(ours.cpu_us() / plain.cpu_us()),
            cpu_us_per_frame: rounded(ours.cpu_us()),
            syscalls_per_frame: ours.system_calls().map(rounded),
            without_polling: without_polling.as_ref().map(Line::from),
            plain: plain.into(),
            peers: peers.iter().map(Line::from).collect(),
        }
    }
}

impl NetResults {
    /// One line of JSON.
    pub fn json(&self) -> String {
        let all = All {
            results: self.frames.iter().map(Entry::from).collect(),
            streams: self.streams.iter().map(streams::Entry::from).collect(),
        };
        serde_json::to_string(&all).expect("numbers and names have a form in JSON")
    }

    /// A table for readers.
    pub fn table(&self) -> String {
        let mut text = String::new();
        if !self.frames.is_empty() {
            text += "way      bytes  contestant                      frames/s   of plain  \
                     CPU us/frame  calls/frame\n";
        }
        for result in &self.frames {
            let NetResult { frames, ours, without_polling, peers, plain } = result;
            for measured in [plain, ours].into_iter().chain(without_polling).chain(peers) {
                let calls =
                    measured.system_calls().map_or("-".into(), |calls| format!("{calls:.3}"));
                let _ = writeln!(
                    text,
                    "{:<7} {:>6}  {:<28} {:>11.0} {:>10.2} {:>13.3} {calls:>12}",
                    word(frames.direction),
                    frames.bytes,
                    measured.name,
                    measured.rate(),
                    measured.rate() / plain.rate(),
                    measured.cpu_us(),
                );
            }
        }
        if !self.streams.is_empty() {
            if !self.frames.is_empty() {
                text.push('\n');
            }
            streams::table(&self.streams, &mut text);
        }
        text
    }
}
