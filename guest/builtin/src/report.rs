//! The report: a line for each check as it ends, or one line of JSON when all have ended; in either
//! case the summary is the last line.
//!
//! ```text
//! ok   memory: 512 MiB in 2 ranges, 64 pages tested
//! FAIL pci: no PCI: ...
//! blk: 5000 ios, 4998 IOPS, bs=4096 depth=32, errors=0, verify_failures=0, disk=0 kicks=161
//! blk: latency us min=55.1 avg=71.0 p99=99.3 max=410.2
//! net: send: 5000 frames sent, 4998 frames/s, 0 received, bytes=1514 depth=32 ... kicks=161
//! builtin: 9 passed, 1 failed
//! ```

use alloc::{format, string::String, vec::Vec};

use crate::{
    blk::load::Outcome,
    cmdline::{Load, NetLoad, ReportFormat},
    net::{
        load::{Flow, Outcome as NetOutcome},
        tally::Counts,
    },
    platform::{serial, time},
    text::{json_string, microseconds},
};

const NANOSECONDS: u128 = 1_000_000_000;

pub(crate) struct Report {
    format: ReportFormat,
    checks: Vec<Entry>,
    loads: Vec<String>,
    networks: Vec<String>,
}

struct Entry {
    name: String,
    result: Result<String, String>,
}

impl Report {
    pub(crate) fn new(format: ReportFormat) -> Self {
        Self { format, checks: Vec::new(), loads: Vec::new(), networks: Vec::new() }
    }

    /// Takes the result of a check: what was seen, or what is wrong.
    pub(crate) fn check(&mut self, name: &str, result: Result<String, String>) {
        if self.format == ReportFormat::Text {
            match &result {
                Ok(seen) => serial::line(format_args!("ok   {name}: {seen}")),
                Err(wrong) => serial::line(format_args!("FAIL {name}: {wrong}")),
            }
        }
        self.checks.push(Entry { name: name.into(), result });
    }

    /// Takes the figures of a load; whether they are good is a check of its own.
    pub(crate) fn load(&mut self, disk: usize, load: &Load, outcome: &Outcome) {
        let Outcome { requests, errors, verify_failures, kicks, latencies, pauses, .. } = outcome;
        let elapsed = nanoseconds(outcome.elapsed);
        let rate = u128::from(*requests) * NANOSECONDS / u128::from(elapsed.max(1));
        let Load { block_bytes, depth, queues, .. } = load;
        let [least, average, p99, most] =
            [latencies.least(), latencies.average(), latencies.percentile(99), latencies.most()]
                .map(nanoseconds);
        let pauses: Vec<String> =
            pauses.sorted().into_iter().map(|pause| format!("{}", nanoseconds(pause))).collect();
        let pauses = pauses.join(",");
        match self.format {
            ReportFormat::Text => {
                serial::line(format_args!(
                    "blk: {requests} ios, {rate} IOPS, bs={block_bytes} depth={depth}, \
                     errors={errors}, verify_failures={verify_failures}, disk={disk} kicks={kicks}"
                ));
                serial::line(format_args!(
                    "blk: latency us min={} avg={} p99={} max={}",
                    microseconds(least),
                    microseconds(average),
                    microseconds(p99),
                    microseconds(most)
                ));
                if !pauses.is_empty() {
                    serial::line(format_args!("blk: longest pauses ns {pauses}"));
                }
            }
            ReportFormat::Json => self.loads.push(format!(
                "{{\"disk\":{disk},\"ios\":{requests},\"iops\":{rate},\"bs\":{block_bytes},\
                 \"depth\":{depth},\"queues\":{queues},\"errors\":{errors},\
                 \"verify_failures\":{verify_failures},\"kicks\":{kicks},\"elapsed_ns\":{elapsed},\
                 \"latency_ns\":{{\"min\":{least},\"avg\":{average},\"p99\":{p99},\"max\":{most}}},\
                 \"pauses_ns\":[{pauses}]}}"
            )),
        }
    }

    /// Takes the figures of a network load, as [`Report::load`] does.
    pub(crate) fn network(&mut self, load: &NetLoad, outcome: &NetOutcome) {
        let NetOutcome { sent, received, counts, damaged, foreign, dropped, kicks, resets, .. } =
            outcome;
        let (name, Counts { lost, duplicates, reordered, .. }) = (load.operation.name(), *counts);
        let NetLoad { frame_bytes, depth, pairs, nic, .. } = load;
        let (send_rate, receive_rate) = (frames_per_second(sent), frames_per_second(received));
        let pauses: Vec<String> = outcome
            .pauses
            .sorted()
            .into_iter()
            .map(|pause| format!("{}", nanoseconds(pause)))
            .collect();
        let pauses = pauses.join(",");
        let (sent, received) = (sent.frames, received.frames);
        match self.format {
            ReportFormat::Text => {
                serial::line(format_args!(
                    "net: {name}: sent {sent} frames, {send_rate} frames/s; received {received} \
                     frames, {receive_rate} frames/s; bytes={frame_bytes} depth={depth} \
                     queues={pairs} nic={nic} kicks={kicks}"
                ));
                serial::line(format_args!(
                    "net: lost={lost} duplicates={duplicates} reordered={reordered} \
                     checksum_errors={damaged} foreign={foreign} dropped={dropped} resets={resets}"
                ));
                if !pauses.is_empty() {
                    serial::line(format_args!("net: longest pauses ns {pauses}"));
                }
            }
            ReportFormat::Json => self.networks.push(format!(
                "{{\"nic\":{nic},\"operation\":\"{name}\",\"bytes\":{frame_bytes},\"depth\":{depth},\
                 \"queues\":{pairs},\"sent\":{sent},\"sent_per_second\":{send_rate},\
                 \"received\":{received},\"received_per_second\":{receive_rate},\"lost\":{lost},\
                 \"duplicates\":{duplicates},\"reordered\":{reordered},\
                 \"checksum_errors\":{damaged},\"foreign\":{foreign},\"dropped\":{dropped},\
                 \"resets\":{resets},\"kicks\":{kicks},\"pauses_ns\":[{pauses}]}}"
            )),
        }
    }

    /// Writes the last line. Whether all checks passed.
    pub(crate) fn finish(&self) -> Verdict {
        let failed = self.checks.iter().filter(|entry| entry.result.is_err()).count();
        let passed = self.checks.len() - failed;
        if self.format == ReportFormat::Json {
            let checks: Vec<String> = self.checks.iter().map(Entry::json).collect();
            serial::line(format_args!(
                "{{\"passed\":{passed},\"failed\":{failed},\"checks\":[{}],\"loads\":[{}],\
                 \"networks\":[{}]}}",
                checks.join(","),
                self.loads.join(","),
                self.networks.join(",")
            ));
        }
        serial::line(format_args!("builtin: {passed} passed, {failed} failed"));
        if failed == 0 { Verdict::Passed } else { Verdict::Failed }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
}

impl Entry {
    fn json(&self) -> String {
        let (ok, detail) = match &self.result {
            Ok(seen) => (true, seen),
            Err(wrong) => (false, wrong),
        };
        let (name, detail) = (json_string(&self.name), json_string(detail));
        format!("{{\"name\":{name},\"ok\":{ok},\"detail\":{detail}}}")
    }
}

fn frames_per_second(flow: &Flow) -> u128 {
    u128::from(flow.frames) * NANOSECONDS / u128::from(nanoseconds(flow.elapsed()).max(1))
}

/// Nanoseconds of so many TSC counts. A TSC of unknown frequency counts nanoseconds.
fn nanoseconds(counts: u64) -> u64 {
    let hz = time::frequency().map_or(NANOSECONDS, u128::from);
    (u128::from(counts) * NANOSECONDS / hz) as u64
}
