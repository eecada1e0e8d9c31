//! Pauses and ends.

use crate::machine::{ENDLESS, Machine, VERIFYING, has_kvm, until};

#[test]
fn nothing_happens_during_a_pause_and_nothing_is_lost() {
    if !has_kvm() {
        return;
    }
    for placement in [&[][..], &["--single-process"]] {
        let mut machine = Machine::start(VERIFYING, placement);
        let mut before = 0;
        for _ in 0..3 {
            before = machine.requests_after(before);
            machine.done(&["pause"]);
            assert_eq!(machine.status()["state"], "paused");
            let paused = machine.requests();
            // A pause of a machine that is paused changes nothing.
            machine.done(&["pause"]);
            assert_eq!(machine.requests(), paused);
            machine.done(&["resume"]);
            assert_eq!(machine.status()["state"], "running");
        }
        machine.end_load();
        assert_eq!(machine.wait(), Some(0), "{}", machine.text("log"));
        let output = machine.text("output");
        assert!(output.contains("errors=0, verify_failures=0"), "{output}");
    }
}

#[test]
fn a_successor_that_comes_during_a_pause_waits_for_its_end() {
    if !has_kvm() {
        return;
    }
    let mut machine = Machine::start(VERIFYING, &[]);
    machine.requests_after(0);
    let pid = machine.disk_pid();
    machine.done(&["pause"]);
    let paused = machine.requests();
    let process = rustix::process::Pid::from_raw(pid).expect("a process");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("killed");
    until("there is a successor", || {
        let device = &machine.status()["devices"][0];
        (device["restarts"] == 1 && device["pid"].is_i64()).then_some(())
    });
    // Changes are made by the successor, which stands still otherwise.
    machine.done(&["rate-limit", "disk0", "ops=1000000"]);
    assert_eq!(machine.requests(), paused);
    machine.done(&["resume"]);
    machine.requests_after(paused);
    machine.end_load();
    assert_eq!(machine.wait(), Some(0), "{}", machine.text("log"));
    let output = machine.text("output");
    assert!(output.contains("errors=0, verify_failures=0"), "{output}");
}

#[test]
fn a_machine_can_be_stopped_and_reset_also_while_it_is_paused() {
    if !has_kvm() {
        return;
    }
    for (command, status, exit) in [("stop", 36, "stop"), ("reset", 32, "reset")] {
        for pause in [false, true] {
            let mut machine = Machine::start(ENDLESS, &["--json"]);
            if pause {
                machine.done(&["pause"]);
            }
            machine.done(&[command]);
            assert!(!machine.path("vm.sock").exists(), "{command} waits for the end");
            assert_eq!(machine.wait(), Some(status));
            let output = machine.text("output");
            let last = output.lines().last().expect("a line");
            assert_eq!(last, format!(r#"{{"exit":"{exit}","status":{status}}}"#));
        }
    }
}

#[test]
fn a_guest_without_acpi_driver_does_not_listen_to_its_power_button() {
    if !has_kvm() {
        return;
    }
    let machine = Machine::start(ENDLESS, &[]);
    let said = machine.ctl(&["power-button"]);
    assert_eq!(said.status, Some(35));
    assert!(said.err.contains("does not listen") && said.err.contains("hint: "), "{}", said.err);
}
