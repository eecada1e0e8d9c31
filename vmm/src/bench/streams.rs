//! Streams of TCP: rounds of all contestants each way.

use std::fmt::Write as _;

use loadgen::frames::Direction;
use loadgen::stream::{FrameSize, SEGMENT, Stream, StreamNet, plain_stream};
use loadgen::{Figures, Polling};
use serde::Serialize;

use super::contestant::{Contestant, Service};
use super::error::BenchError;
use super::net::{PLAIN, TAP, word};
use super::result::{Measured, fastest, rounded};
use crate::folder::Folder;

/// All contestants one way.
#[derive(Debug, Clone)]
pub(super) struct StreamResult {
    direction: Direction,
    ours: Measured,
    without_polling: Option<Measured>,
    peers: Vec<Measured>,
    /// A call for each frame of the MTU.
    plain: Measured,
    /// A call for each large frame.
    plain_large: Measured,
}

/// Rounds of one way.
pub(super) fn one(
    stream: Stream,
    rounds: u32,
    ours: &Contestant,
    against: &[Contestant],
    folder: &Folder,
    progress: &dyn Fn(&str),
) -> Result<StreamResult, BenchError> {
    let silent = Stream { polling: Polling::Off, ..stream };
    let (mut plain, mut plain_large) = (Vec::new(), Vec::new());
    let (mut polling, mut sleeping) = (Vec::new(), Vec::new());
    let mut peers = vec![Vec::new(); against.len()];
    for round in 1..=rounds {
        let say = |who: &str| {
            let way = word(stream.direction);
            progress(&format!("{way} a stream, round {round} of {rounds}: {who}"));
        };
        say("plain loop");
        for (frames, results) in
            [(FrameSize::Mtu, &mut plain), (FrameSize::Large, &mut plain_large)]
        {
            let figures = plain_stream(PLAIN, &Stream { frames, ..stream });
            let name = || "the plain loop".to_owned();
            results.push(figures.map_err(|source| BenchError::Load { name: name(), source })?);
        }
        say(&ours.name);
        polling.push(serve(ours, stream, folder)?);
        if stream.polling != Polling::Off {
            say("vmm without polling");
            sleeping.push(serve(ours, silent, folder)?);
        }
        for (peer, rounds) in against.iter().zip(&mut peers) {
            say(&peer.name);
            rounds.push(serve(peer, stream, folder)?);
        }
    }
    let nothing = BenchError::no_round;
    let peers = against.iter().zip(peers);
    Ok(StreamResult {
        direction: stream.direction,
        ours: Measured::of(&ours.name, polling).ok_or_else(nothing)?,
        without_polling: Measured::of("vmm, driver sleeps", sleeping),
        peers: peers.filter_map(|(peer, rounds)| Measured::of(&peer.name, rounds)).collect(),
        plain: Measured::of("plain loop", plain).ok_or_else(nothing)?,
        plain_large: Measured::of("plain loop, large frames", plain_large).ok_or_else(nothing)?,
    })
}

/// One run against a back end that is started for it.
fn serve(contestant: &Contestant, stream: Stream, folder: &Folder) -> Result<Figures, BenchError> {
    let (mut service, connection) = contestant.start(TAP, &folder.file("socket"), 1)?;
    let process = service.process();
    let load = StreamNet::new(connection, stream).and_then(|net| net.run(TAP, process));
    Service::judge(std::slice::from_mut(&mut service), contestant, load)
}

/// One contestant, for machines.
#[derive(Debug, Serialize)]
struct Line<'a> {
    name: &'a str,
    frames_per_s: u64,
    frames_per_s_min: u64,
    frames_per_s_max: u64,
    gbit_per_s: f64,
    cpu_us_per_frame: f64,
    syscalls_per_frame: Option<f64>,
}

/// One way, for machines.
#[derive(Debug, Serialize)]
pub(super) struct Entry<'a> {
    way: &'static str,
    frames_per_s: u64,
    ratio_plain: f64,
    ratio_plain_large: f64,
    ratio_peer: Option<f64>,
    gbit_per_s: f64,
    cpu_ratio_plain: f64,
    cpu_us_per_frame: f64,
    syscalls_per_frame: Option<f64>,
    without_polling: Option<Line<'a>>,
    plain: Line<'a>,
    plain_large: Line<'a>,
    peers: Vec<Line<'a>>,
}

impl<'a> From<&'a Measured> for Line<'a> {
    fn from(measured: &'a Measured) -> Self {
        let (slowest, fastest) = measured.spread();
        Self {
            name: &measured.name,
            frames_per_s: measured.rate() as u64,
            frames_per_s_min: slowest as u64,
            frames_per_s_max: fastest as u64,
            gbit_per_s: gigabits(measured),
            cpu_us_per_frame: rounded(measured.cpu_us()),
            syscalls_per_frame: measured.system_calls().map(rounded),
        }
    }
}

impl<'a> From<&'a StreamResult> for Entry<'a> {
    fn from(result: &'a StreamResult) -> Self {
        let StreamResult { direction, ours, without_polling, peers, plain, plain_large } = result;
        Self {
            way: word(*direction),
            frames_per_s: ours.rate() as u64,
            ratio_plain: rounded(ours.rate() / plain.rate()),
            ratio_plain_large: rounded(ours.rate() / plain_large.rate()),
            ratio_peer: fastest(peers).map(|best| rounded(ours.rate() / best.rate())),
            gbit_per_s: gigabits(ours),
            cpu_ratio_plain: rounded(ours.cpu_us() / plain.cpu_us()),
            cpu_us_per_frame: rounded(ours.cpu_us()),
            syscalls_per_frame: ours.system_calls().map(rounded),
            without_polling: without_polling.as_ref().map(Line::from),
            plain: plain.into(),
            plain_large: plain_large.into(),
            peers: peers.iter().map(Line::from).collect(),
        }
    }
}

/// What a stream carries, headers not counted.
fn gigabits(measured: &Measured) -> f64 {
    rounded(measured.rate() * (SEGMENT * 8) as f64 / 1e9)
}

/// Adds a table for readers.
pub(super) fn table(results: &[StreamResult], text: &mut String) {
    *text += "stream   contestant                      frames/s   of plain    Gbit/s  CPU us/frame  \
              calls/frame\n";
    for result in results {
        let StreamResult { direction, ours, without_polling, peers, plain, plain_large } = result;
        let all = [plain, plain_large, ours].into_iter().chain(without_polling).chain(peers);
        for measured in all {
            let calls = measured.system_calls().map_or("-".into(), |calls| format!("{calls:.3}"));
            let _ = writeln!(
                text,
                "{:<7}  {:<28} {:>11.0} {:>10.2} {:>9.1} {:>13.3} {calls:>12}",
                word(*direction),
                measured.name,
                measured.rate(),
                measured.rate() / plain.rate(),
                gigabits(measured),
                measured.cpu_us(),
            );
        }
    }
}
