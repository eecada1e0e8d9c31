//! `vmm bench`: a short run, and what it refuses.

use std::fs;

use crate::support::{text, vmm};
use tempfile::TempDir;

#[test]
fn a_short_run_has_figures_json_and_a_page() {
    let folder = TempDir::new().expect("a temporary folder");
    let run = || {
        let arguments = "bench blk --file disk --create 1M --depth 2 --rounds 1 --seconds 0.05 --warm-up 0 \
                         --json --report page.html --also direct --also direct,sqpoll";
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let output = vmm(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let line = text(&output.stdout);
        let json: serde_json::Value = serde_json::from_str(&line).expect("one line of JSON");
        let result = &json["results"][0];
        assert_eq!(result["depth"], 2);
        for (index, name) in ["vmm direct", "vmm direct,sqpoll"].iter().enumerate() {
            assert_eq!(result["with_options"][index]["name"], *name, "{line}");
        }
        ["iops", "ratio_native", "p50_us"]
            .iter()
            .all(|figure| result[figure].as_f64().expect("a number") > 0.0)
    };
    // A machine with much else to do may stand still for as long as a run takes.
    while !run() {}
    let page = fs::read_to_string(folder.path().join("page.html")).expect("a page");
    assert!(page.contains("<svg") && page.contains("depth 2"));
}

#[test]
fn what_devices_are_made_of_has_figures() {
    let folder = TempDir::new().expect("a temporary folder");
    for (kind, first) in [("ipc", "a message to a task"), ("executor", "a task that ends at once")]
    {
        let output = vmm(folder.path(), &["bench", kind, "--rounds", "1", "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let json: serde_json::Value =
            serde_json::from_str(&text(&output.stdout)).expect("one line of JSON");
        assert_eq!(json["results"][0]["what"], first);
        for result in json["results"].as_array().expect("results") {
            for way in result["ways"].as_array().expect("ways") {
                assert!(way["ns"].as_f64().is_some_and(|ns| ns > 0.0), "{result}");
            }
        }
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = TempDir::new().expect("a temporary folder");
    fs::write(folder.path().join("disk"), [0; 4096]).expect("written");
    let table = [
        (
            "--file disk --rw randwrite",
            "error: the workload would overwrite disk\n\
             hint: say `--overwrite` if nothing in it is of value\n",
        ),
        (
            "--file none",
            "error: cannot use none\n  1: No such file or directory (os error 2)\n\
             hint: `--create 1G` makes it, full of random bytes\n",
        ),
        (
            "--file disk --also directly",
            "error: cannot use `directly` as --also\n  1: unknown key `directly` (did you mean `direct`?); the keys are \
             path, ro, direct, sqpoll, sqpoll-cpu, iopoll, queues, threads, block-size, id, cpus, limit-bytes and limit-ops\n\
             hint: `vmm bench --help` lists what it can be\n",
        ),
        ("--file disk --bs 100", "error: a request has 512 bytes to 1M, in steps of 512\n"),
    ];
    for (arguments, expected) in table {
        let arguments: Vec<&str> =
            ["bench", "blk"].into_iter().chain(arguments.split_whitespace()).collect();
        let output = vmm(folder.path(), &arguments);
        assert_eq!(text(&output.stderr), expected, "{arguments:?}");
        assert_eq!(output.status.code(), Some(35), "{arguments:?}");
    }
}
