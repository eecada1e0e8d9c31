//! The machine's counters as `OpenMetrics` 1.0 text.

use std::fmt::{self, Write};

use devices::virtio::metrics::QueueCounts;

use super::directory::Directory;
use crate::control::MachineState;

/// All metrics, to the end mark.
pub(super) fn write(directory: &Directory, uptime: f64, state: MachineState) -> String {
    let queues = directory.devices.iter().flat_map(|device| {
        let counts = device.metrics().read();
        counts.into_iter().enumerate().map(|(queue, counts)| (Labels(&device.id, queue), counts))
    });
    let queues: Vec<_> = queues.collect();
    let mut text = Text(String::new());
    text.machine(uptime, state);
    text.family("vmm_device_restarts", "counter", "Processes of the device that were replaced.");
    for device in &directory.devices {
        let (id, restarts) = (&device.id, device.restarts());
        text.line(format_args!("vmm_device_restarts_total{{device=\"{id}\"}} {restarts}"));
    }
    text.counters(&queues);
    text.batches(&queues);
    text.latencies(&queues);
    text.line(format_args!("# EOF"));
    text.0
}

/// A queue's labels, without braces. Ids are letters and digits.
struct Labels<'a>(&'a str, usize);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device=\"{}\",queue=\"{}\"", self.0, self.1)
    }
}

type Counter = (&'static str, &'static str, fn(&QueueCounts) -> u64);

const COUNTERS: [Counter; 4] = [
    ("requests", "Buffers that were given back to the driver.", |counts| counts.requests),
    ("bytes", "Bytes moved, without headers.", |counts| counts.bytes),
    ("kicks", "Notifications of the driver that woke the device.", |counts| counts.kicks),
    ("interrupts", "Interrupts sent to the guest.", |counts| counts.interrupts),
];

struct Text(String);

impl Text {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.0.write_fmt(line);
        self.0.push('\n');
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# TYPE {name} {kind}"));
        self.line(format_args!("# HELP {name} {help}"));
    }

    fn machine(&mut self, uptime: f64, state: MachineState) {
        self.family("vmm_build", "info", "The program that runs the machine.");
        let version = env!("CARGO_PKG_VERSION");
        self.line(format_args!("vmm_build_info{{version=\"{version}\"}} 1"));
        self.line(format_args!("# TYPE vmm_uptime_seconds gauge"));
        self.line(format_args!("# UNIT vmm_uptime_seconds seconds"));
        self.line(format_args!("# HELP vmm_uptime_seconds Time since the machine started."));
        self.line(format_args!("vmm_uptime_seconds {uptime:.3}"));
        self.family("vmm_paused", "gauge", "Whether the machine stands still.");
        self.line(format_args!("vmm_paused {}", u8::from(state == MachineState::Paused)));
    }

    fn counters(&mut self, queues: &[(Labels<'_>, QueueCounts)]) {
        for (name, help, value) in COUNTERS {
            self.family(&format!("vmm_queue_{name}"), "counter", help);
            for (labels, counts) in queues {
                let value = value(counts);
                self.line(format_args!("vmm_queue_{name}_total{{{labels}}} {value}"));
            }
        }
    }

    fn batches(&mut self, queues: &[(Labels<'_>, QueueCounts)]) {
        let name = "vmm_queue_batch_size";
        self.family(name, "histogram", "Buffers given back to the driver together.");
        for (labels, counts) in queues {
            let bound = |bucket: u32| (1_u64 << bucket) as f64;
            let sum = counts.requests as f64;
            self.histogram(name, labels, &counts.batch_sizes, bound, sum);
        }
    }

    fn latencies(&mut self, queues: &[(Labels<'_>, QueueCounts)]) {
        let name = "vmm_queue_latency_seconds";
        self.line(format_args!("# TYPE {name} histogram"));
        self.line(format_args!("# UNIT {name} seconds"));
        let help = "Time of a request from when the device took it to when it gave it back.";
        self.line(format_args!("# HELP {name} {help}"));
        for (labels, counts) in queues {
            let bound = |bucket: u32| (1_u64 << bucket) as f64 / 1e6;
            let sum = counts.nanoseconds as f64 / 1e9;
            self.histogram(name, labels, &counts.latencies, bound, sum);
        }
    }

    /// The last bucket holds all that is above the bounds.
    fn histogram(
        &mut self,
        name: &str,
        labels: &Labels<'_>,
        buckets: &[u64],
        bound: impl Fn(u32) -> f64,
        sum: f64,
    ) {
        let mut count: u64 = 0;
        for (index, value) in (0_u32..).zip(buckets) {
            count = count.saturating_add(*value);
            if index as usize + 1 < buckets.len() {
                let bound = bound(index);
                self.line(format_args!("{name}_bucket{{{labels},le=\"{bound:?}\"}} {count}"));
            } else {
                self.line(format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {count}"));
            }
        }
        self.line(format_args!("{name}_count{{{labels}}} {count}"));
        self.line(format_args!("{name}_sum{{{labels}}} {sum:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_and_bounds_are_numbers() {
        let mut counts = QueueCounts { requests: 7, nanoseconds: 2_500_000, ..Default::default() };
        counts.batch_sizes[1] = 2;
        counts.batch_sizes[15] = 1;
        counts.latencies[0] = 4;
        let queues = [(Labels("disk0", 1), counts)];
        let mut text = Text(String::new());
        text.counters(&queues);
        text.batches(&queues);
        text.latencies(&queues);
        let wanted = [
            "# TYPE vmm_queue_requests counter",
            "vmm_queue_requests_total{device=\"disk0\",queue=\"1\"} 7",
            "vmm_queue_batch_size_bucket{device=\"disk0\",queue=\"1\",le=\"1.0\"} 0",
            "vmm_queue_batch_size_bucket{device=\"disk0\",queue=\"1\",le=\"2.0\"} 2",
            "vmm_queue_batch_size_bucket{device=\"disk0\",queue=\"1\",le=\"+Inf\"} 3",
            "vmm_queue_batch_size_count{device=\"disk0\",queue=\"1\"} 3",
            "vmm_queue_latency_seconds_bucket{device=\"disk0\",queue=\"1\",le=\"1e-6\"} 4",
            "vmm_queue_latency_seconds_sum{device=\"disk0\",queue=\"1\"} 0.0025",
        ];
        for line in wanted {
            assert!(text.0.lines().any(|found| found == line), "{line}\n{}", text.0);
        }
    }
}
