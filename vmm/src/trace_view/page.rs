//! One page that draws a trace, which needs nothing else.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use trace::{Entry, Event, Given, Record, TraceError};

use super::words;
use crate::bench::report::{COLORS, Line, Points, STYLE, bounds, plot, section};
use crate::markup::escaped;

/// Parts of the time that is drawn.
const BINS: usize = 400;
/// Messages that are told of one by one.
const MOST_MESSAGES: usize = 400;

/// Something that happened: when, in seconds.
type Moment = f64;

#[derive(Default)]
struct Drawn {
    end: Moment,
    /// What each actor did, and when.
    actors: BTreeMap<String, Vec<Moment>>,
    /// Of each device, when requests ended and how many microseconds they took.
    latencies: BTreeMap<String, Vec<(Moment, f64)>>,
    messages: Vec<(Moment, String, String)>,
    messages_left_out: usize,
    lost_bytes: u64,
}

/// The page of these entries.
pub(super) fn html<'a>(
    name: &str,
    entries: impl Iterator<Item = Result<(Duration, Entry<'a>), TraceError>>,
) -> Result<String, TraceError> {
    let mut drawn = Drawn::default();
    let mut open: HashMap<(String, u16, u16), Moment> = HashMap::new();
    for entry in entries {
        let (time, entry) = entry?;
        drawn.take(time.as_secs_f64(), &entry, &mut open);
    }
    Ok(drawn.page(name))
}

impl Drawn {
    fn take(
        &mut self,
        at: Moment,
        entry: &Entry<'_>,
        open: &mut HashMap<(String, u16, u16), Moment>,
    ) {
        let actor = words::actor(entry).to_owned();
        self.end = self.end.max(at);
        self.actors.entry(actor.clone()).or_default().push(at);
        match &entry.event {
            Event::Did(Record::Taken { queue, head, .. }) => {
                open.insert((actor, *queue, *head), at);
            }
            Event::Did(Record::Given(Given { queue, head, .. })) => {
                if let Some(begin) = open.remove(&(actor.clone(), *queue, *head)) {
                    self.latencies.entry(actor).or_default().push((at, (at - begin) * 1e6));
                }
            }
            Event::Did(Record::Began { .. } | Record::Ended { .. }) => {}
            Event::Lost(bytes) => self.lost_bytes += bytes,
            Event::Did(_) if self.messages.len() == MOST_MESSAGES => self.messages_left_out += 1,
            Event::Did(_) => self.messages.push((at, actor, words::event(entry))),
        }
    }

    fn page(&self, name: &str) -> String {
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <title>{title}</title>\n<style>{STYLE}\ntd:nth-child(3) {{ text-align: left; \
             font-family: monospace; overflow-wrap: anywhere }}</style></head><body>\n\
             <h1>{title}</h1>\n<p>{} actors, {:.3} seconds{}.</p>\n",
            self.actors.len(),
            self.end,
            match self.lost_bytes {
                0 => String::new(),
                bytes => format!("; {bytes} bytes of it are lost"),
            },
            title = escaped(name),
        );
        section(&mut page, "Events per second", &self.rates());
        if !self.latencies.is_empty() {
            let title =
                "Microseconds from taking a request to giving it back, the slowest of each moment";
            section(&mut page, title, &self.slowest());
        }
        page += "<h2>Messages</h2>\n<table><tr><th>seconds<th>actor<th>message</tr>\n";
        for (at, actor, text) in &self.messages {
            // Writing to a string cannot fail.
            let _ =
                writeln!(page, "<tr><td>{at:.6}<td>{}<td>{}</tr>", escaped(actor), escaped(text));
        }
        page += "</table>\n";
        if self.messages_left_out > 0 {
            let _ = writeln!(
                page,
                "<p class=\"note\">{} more are left out.</p>",
                self.messages_left_out
            );
        }
        page + "</body></html>\n"
    }

    fn bin(&self) -> f64 {
        (self.end / BINS as f64).max(1e-6)
    }

    fn rates(&self) -> String {
        let bin = self.bin();
        let line = |((name, moments), color): ((&String, &Vec<Moment>), _)| {
            let mut counts = vec![0.0; BINS + 1];
            for at in moments {
                counts[((at / bin) as usize).min(BINS)] += 1.0 / bin;
            }
            let points = counts.iter().enumerate();
            let points = points.map(|(index, rate)| (index as f64 * bin, *rate)).collect();
            Line { name: name.clone(), color, points }
        };
        let lines: Vec<Line> =
            self.actors.iter().zip(COLORS.iter().copied().cycle()).map(line).collect();
        self.over_time(&lines)
    }

    fn slowest(&self) -> String {
        let bin = self.bin();
        let line = |((name, ends), color): ((&String, &Vec<(Moment, f64)>), _)| {
            let mut slowest: BTreeMap<usize, f64> = BTreeMap::new();
            for (at, micros) in ends {
                let slot = slowest.entry((at / bin) as usize).or_default();
                *slot = slot.max(*micros);
            }
            let points = slowest.into_iter().map(|(index, micros)| (index as f64 * bin, micros));
            Line { name: name.clone(), color, points: points.collect() }
        };
        let lines: Vec<Line> =
            self.latencies.iter().zip(COLORS.iter().copied().cycle()).map(line).collect();
        self.over_time(&lines)
    }

    fn over_time(&self, lines: &[Line]) -> String {
        let (_, values) = bounds(lines);
        plot(lines, Points::Hidden, 0.0..self.end.max(1e-3), 0.0..values.1 * 1.1, "seconds")
    }
}
