//! Terminal, signals and the serial port on standard input and output, in processes of their own:
//! signals are blocked while a process has one thread, and a terminal belongs to a session. So
//! this file is its own harness, and runs itself again in the role of the process under test.

mod machine;
mod port;
mod process;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use process::{Process, Terminal};
use rustix::process::Signal;

const CTRL_A_X: &[u8] = b"\x01x";

const TESTS: [(&str, fn()); 9] = [
    ("keys_reach_the_guest_and_ctrl_a_x_quits", keys_reach_the_guest_and_ctrl_a_x_quits),
    ("signals_end_in_order", signals_end_in_order),
    ("a_closed_terminal_ends_in_order", a_closed_terminal_ends_in_order),
    ("a_panic_restores_the_terminal", a_panic_restores_the_terminal),
    ("control_c_goes_to_a_guest_that_reads", control_c_goes_to_a_guest_that_reads),
    ("a_stopped_process_gives_the_terminal_back", a_stopped_process_gives_the_terminal_back),
    ("the_background_leaves_the_terminal_alone", the_background_leaves_the_terminal_alone),
    ("input_that_is_no_terminal_is_copied", input_that_is_no_terminal_is_copied),
    ("closed_and_empty_input_is_an_end", closed_and_empty_input_is_an_end),
];

/// These need a KVM.
const MACHINE_TESTS: [(&str, fn()); 3] = [
    ("control_c_ends_a_machine", machine::control_c_ends_a_machine),
    ("signals_end_a_machine", machine::signals_end_a_machine),
    ("a_closed_terminal_ends_a_machine", machine::a_closed_terminal_ends_a_machine),
];

/// What has come of the tests.
#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Tally {
    fn run(&mut self, name: &str, test: fn()) {
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        *(if passed { &mut self.passed } else { &mut self.failed }) += 1;
    }

    fn skip(&mut self, name: &str, reason: &str) {
        println!("test {name} ... skipped: {reason}");
        self.skipped += 1;
    }
}

fn main() -> ExitCode {
    if let Some(role) = std::env::var_os(process::ROLE) {
        return port::play(&role.to_string_lossy());
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let chosen = |name: &str| filter.as_ref().is_none_or(|part| name.contains(part));
    let mut tally = Tally::default();
    for driver in ["auto", "epoll"] {
        process::choose_driver(driver);
        for (name, test) in TESTS.into_iter().filter(|(name, _)| chosen(name)) {
            tally.run(&format!("{driver}::{name}"), test);
        }
    }
    let missing = machine::missing();
    for (name, test) in MACHINE_TESTS.into_iter().filter(|(name, _)| chosen(name)) {
        match &missing {
            None => tally.run(name, test),
            Some(reason) => tally.skip(name, reason),
        }
    }
    let Tally { passed, failed, skipped } = tally;
    println!("\ntest result: {passed} passed; {failed} failed; {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn keys_reach_the_guest_and_ctrl_a_x_quits() {
    let terminal = Terminal::new();
    let before = terminal.modes();
    let mut process = Process::on_terminal(&terminal, "listening");
    terminal.expect(b"ready\r\n");
    assert_ne!(terminal.modes(), before, "the terminal is not raw");
    terminal.press(b"a\x01\x01\x1b");
    terminal.expect(b"a\x01\x1b");
    terminal.press(b"\x01h");
    terminal.expect(b"Ctrl-A x: quit");
    terminal.press(CTRL_A_X);
    assert_eq!(process.status(), Some(130));
    assert_eq!(terminal.modes(), before);
}

fn signals_end_in_order() {
    for (signal, status) in
        [(Signal::HUP, 129), (Signal::INT, 130), (Signal::QUIT, 131), (Signal::TERM, 143)]
    {
        let terminal = Terminal::new();
        let before = terminal.modes();
        let mut process = Process::on_terminal(&terminal, "listening");
        terminal.expect(b"ready\r\n");
        process.signal(signal);
        assert_eq!(process.status(), Some(status));
        assert_eq!(terminal.modes(), before);
        terminal.expect(b"last words\r\n");
    }
}

fn a_closed_terminal_ends_in_order() {
    let terminal = Terminal::new();
    let mut process = Process::on_terminal(&terminal, "listening");
    terminal.expect(b"ready\r\n");
    drop(terminal);
    assert_eq!(process.status(), Some(129));
}

fn a_panic_restores_the_terminal() {
    let terminal = Terminal::new();
    let before = terminal.modes();
    let mut process = Process::on_terminal(&terminal, "panicking");
    terminal.expect(b"ready\r\n");
    assert_ne!(terminal.modes(), before);
    terminal.press(b"!");
    terminal.expect(b"panicked at");
    assert_ne!(process.status(), Some(0));
    assert_eq!(terminal.modes(), before);
}

fn control_c_goes_to_a_guest_that_reads() {
    let terminal = Terminal::new();
    let mut process = Process::on_terminal(&terminal, "listening");
    terminal.expect(b"ready\r\n");
    terminal.press(b"\x03.");
    terminal.expect(b"\x03.");
    terminal.press(CTRL_A_X);
    assert_eq!(process.status(), Some(130));

    let terminal = Terminal::new();
    let mut process = Process::on_terminal(&terminal, "deaf");
    terminal.expect(b"ready\r\n");
    terminal.press(b"\x03");
    assert_eq!(process.status(), Some(130));
}

fn a_stopped_process_gives_the_terminal_back() {
    let terminal = Terminal::new();
    let before = terminal.modes();
    let mut process = Process::on_terminal(&terminal, "listening");
    terminal.expect(b"ready\r\n");
    let raw = terminal.modes();
    process.signal(Signal::TSTP);
    process.wait_until_stopped();
    assert_eq!(terminal.modes(), before);
    process.signal(Signal::CONT);
    // Raw again: an unfinished line arrives.
    terminal.wait_for_modes(&raw);
    terminal.press(b"b");
    terminal.expect(b"b");
    process.signal(Signal::TERM);
    assert_eq!(process.status(), Some(143));
    assert_eq!(terminal.modes(), before);
}

fn the_background_leaves_the_terminal_alone() {
    let terminal = Terminal::new();
    let before = terminal.modes();
    // The leader of the session stays in the foreground and starts the port as a job.
    let mut leader = Process::on_terminal(&terminal, "leader");
    terminal.expect(b"ready");
    assert_eq!(terminal.modes(), before);
    // Keys are for the foreground: were they read, the job would be stopped or quit.
    terminal.press(b"\x01x\n");
    leader.signal(Signal::INT);
    // The leader passes SIGTERM on to the job and its status on to us.
    assert_eq!(leader.status(), Some(143));
    assert_eq!(terminal.modes(), before);
}

fn input_that_is_no_terminal_is_copied() {
    // Every byte counts: there are no escape keys.
    let mut process = Process::on_pipe("listening");
    process.expect(b"ready\n");
    process.write(b"\x01x\x03\x00\xff");
    process.expect(b"\x01x\x03\x00\xff");
    process.close_input();
    process.signal(Signal::TERM);
    assert_eq!(process.status(), Some(143));

    let mut process = Process::on_file("listening", b"from a file\x01x");
    process.expect(b"ready\nfrom a file\x01x");
    process.signal(Signal::TERM);
    assert_eq!(process.status(), Some(143));
}

fn closed_and_empty_input_is_an_end() {
    for mut process in [Process::on_null("listening"), Process::on_closed("listening")] {
        process.expect(b"ready\n");
        process.signal(Signal::INT);
        assert_eq!(process.status(), Some(130));
    }
}
