//! The report: a line for each check as it ends, or one line of JSON when all have ended; in either
//! case the summary is the last line.
//!
//! ```text
//! ok   memory: 512 MiB in 2 ranges, 64 pages tested
//! FAIL pci: no PCI: ...
//! blk: 5000 ios, 4998 IOPS, bs=4096 depth=32, errors=0, verify_failures=0, disk=0 kicks=161
//! blk: latency us min=55.1 avg=71.0 p99=99.3 max=410.2
//! builtin: 9 passed, 1 failed
//! ```

use alloc::{format, string::String, vec::Vec};

use crate::{
    blk::load::Outcome,
    cmdline::{Load, ReportFormat},
    platform::{serial, time},
    text::{json_string, microseconds},
};

const NANOSECONDS: u128 = 1_000_000_000;

pub(crate) struct Report {
    format: ReportFormat,
    checks: Vec<Entry>,
    loads: Vec<String>,
}

struct Entry {
    name: String,
    result: Result<String, String>,
}

impl Report {
    pub(crate) fn new(format: ReportFormat) -> Self {
        Self { format, checks: Vec::new(), loads: Vec::new() }
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

    /// Writes the last line. Whether all checks passed.
    pub(crate) fn finish(&self) -> Verdict {
        let failed = self.checks.iter().filter(|entry| entry.result.is_err()).count();
        let passed = self.checks.len() - failed;
        if self.format == ReportFormat::Json {
            let checks: Vec<String> = self.checks.iter().map(Entry::json).collect();
            serial::line(format_args!(
                "{{\"passed\":{passed},\"failed\":{failed},\"checks\":[{}],\"loads\":[{}]}}",
                checks.join(","),
                self.loads.join(",")
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

/// Nanoseconds of so many TSC counts. A TSC of unknown frequency counts nanoseconds.
fn nanoseconds(counts: u64) -> u64 {
    let hz = time::frequency().map_or(NANOSECONDS, u128::from);
    (u128::from(counts) * NANOSECONDS / hz) as u64
}
