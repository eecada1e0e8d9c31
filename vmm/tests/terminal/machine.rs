//! A whole machine: the built-in guest on a terminal. It does not read its serial port.

use rustix::process::Signal;

use crate::process::{Process, Terminal};

/// Stays up long after the test has ended it.
const HOLD: &[&str] = &["run", "--cmdline", "hold=600"];

/// The last check before the guest holds.
const LAST_CHECK: &[u8] = b"pci: ";

/// Whether machines run here.
pub(crate) fn missing() -> Option<String> {
    kvm_ioctls::Kvm::new().err().map(|error| format!("/dev/kvm: {}", std::io::Error::from(error)))
}

pub(crate) fn control_c_ends_a_machine() {
    let terminal = Terminal::new();
    let before = terminal.modes();
    let mut machine = Process::vmm_on_terminal(&terminal, HOLD);
    terminal.expect(LAST_CHECK);
    assert_ne!(terminal.modes(), before, "the terminal is not raw");
    terminal.press(b"\x03");
    terminal.expect(b"vmm: SIGINT ended the machine");
    assert_eq!(machine.status(), Some(130));
    assert_eq!(terminal.modes(), before);
}

pub(crate) fn signals_end_a_machine() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let terminal = Terminal::new();
        let before = terminal.modes();
        let mut machine = Process::vmm_on_terminal(&terminal, HOLD);
        terminal.expect(LAST_CHECK);
        machine.signal(signal);
        terminal.expect(b"ended the machine");
        assert_eq!(machine.status(), Some(status));
        assert_eq!(terminal.modes(), before);
    }
}

pub(crate) fn a_closed_terminal_ends_a_machine() {
    let terminal = Terminal::new();
    let mut machine = Process::vmm_on_terminal(&terminal, HOLD);
    terminal.expect(LAST_CHECK);
    drop(terminal);
    assert_eq!(machine.status(), Some(129));
}
