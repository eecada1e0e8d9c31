//! The text of the metrics, by the rules of `OpenMetrics` 1.0.

use std::collections::HashMap;

use crate::machine::{ENDLESS, Machine, has_kvm};

/// Counts are whole numbers.
fn same(one: f64, other: f64) -> bool {
    (one - other).abs() < f64::EPSILON
}

/// Checks the whole text and gives its samples.
fn parse(text: &str) -> HashMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with its mark");
    let mut kinds = HashMap::new();
    let mut samples = HashMap::new();
    let (mut family, mut buckets) = (String::new(), (String::new(), 0.0));
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let [what, name, value] = rest.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            match what {
                "TYPE" => {
                    name.clone_into(&mut family);
                    assert!(kinds.insert(name.to_owned(), value.to_owned()).is_none(), "{line}");
                }
                "UNIT" => assert!(name == family && name.ends_with(value), "{line}"),
                "HELP" => assert!(name == family && !value.is_empty(), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let value: f64 = value.parse().expect("a number");
        let name = series.split('{').next().expect("a name");
        let suffix = name.strip_prefix(&family).expect("a sample of the family");
        match (kinds[&family].as_str(), suffix) {
            ("counter", "_total") | ("gauge", "") | ("info", "_info") | ("histogram", "_sum") => {}
            ("histogram", "_bucket") => {
                // Buckets of a series follow each other, and each holds those before it.
                let (labels, _) = series.split_once("le=").expect("a bound");
                let before = if buckets.0 == labels { buckets.1 } else { 0.0 };
                assert!(value >= before, "{line}");
                buckets = (labels.to_owned(), value);
            }
            ("histogram", "_count") => assert!(same(value, buckets.1), "{line}"),
            (kind, _) => panic!("{line} is no {kind}"),
        }
        assert!(samples.insert(series.to_owned(), value).is_none(), "{line}");
    }
    samples
}

#[test]
fn metrics_are_open_metrics_and_add_up() {
    if !has_kvm() {
        return;
    }
    let machine = Machine::start(ENDLESS, &[]);
    machine.requests_after(100);
    machine.done(&["pause"]);
    let samples = parse(&machine.done(&["metrics"]));
    let disk = |name: &str| samples[&format!("vmm_queue_{name}{{device=\"disk0\",queue=\"0\"}}")];
    let requests = disk("requests_total");
    assert!(requests > 100.0);
    // Each read moves 4096 bytes; the checks before the load read the serial number only.
    assert!(disk("bytes_total") > 4096.0 * 90.0);
    assert!(disk("batch_size_count") <= requests && disk("batch_size_count") > 0.0);
    assert!(same(disk("batch_size_sum"), requests));
    assert!(same(disk("latency_seconds_count"), requests));
    assert!(disk("latency_seconds_sum") > 0.0);
    assert!(same(samples["vmm_paused"], 1.0));
    assert!(same(samples["vmm_device_restarts_total{device=\"disk0\"}"], 0.0));
}
