//! What is known of a crash, in words that nobody need be afraid of.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use proto::v1::CrashReport;
use serde::{Deserialize, Serialize};

use crate::logs::Date;
use crate::terminal::cleaned;

/// Letters of a name. A path has no more than 4096 bytes.
const MAX_TEXT: usize = 1024;
/// Arguments of a command that are kept.
const MAX_ARGUMENTS: usize = 32;

/// A crash. Its text has no control characters, and is bounded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// By which it is found; not the guest's.
    pub id: String,
    /// When it came, by this host's clock.
    pub time: String,
    /// Which guest.
    pub machine: String,
    /// The program's file.
    pub program: String,
    /// Its arguments.
    pub command: Vec<String>,
    /// Its process.
    pub pid: u32,
    /// The thread that crashed.
    pub thread: u32,
    /// That thread's name.
    pub thread_name: String,
    /// The signal's number.
    pub signal: u32,
    /// The signal's name.
    pub signal_name: String,
    /// What kind of it (`si_code`).
    pub code: i32,
    /// The address that could not be used, or where the program was.
    pub address: String,
    /// The guest's kernel.
    pub kernel: String,
    /// Why there is no minidump; empty if there is one.
    pub problem: String,
    #[serde(skip)]
    pub(super) minidump: Vec<u8>,
}

impl Crash {
    /// What a guest reports.
    pub fn new(report: CrashReport, machine: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let date = Date::from_ns(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        let Date { year, month, day, hour, minute, second, micros } = date;
        let arguments = report.command_line.split(|&byte| byte == 0).take(MAX_ARGUMENTS);
        let mut command: Vec<String> = arguments.map(text).collect();
        // There is a zero byte after each.
        if command.last().is_some_and(String::is_empty) {
            command.pop();
        }
        Self {
            id: format!(
                "{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}-{micros:06}-{:04x}",
                random()
            ),
            time: format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"),
            machine: text(machine.as_bytes()),
            program: text(&report.program),
            command,
            pid: report.pid,
            thread: report.thread,
            thread_name: text(&report.thread_name),
            signal: report.signal,
            signal_name: signal_name(report.signal),
            code: report.code,
            address: format!("{:#x}", report.address),
            kernel: text(report.kernel.as_bytes()),
            problem: text(report.problem.as_bytes()),
            minidump: report.minidump,
        }
    }
}

/// Names differ within a microsecond.
fn random() -> u16 {
    let mut bytes = [0; 2];
    // Without it they differ by their times alone.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u16::from_ne_bytes(bytes)
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, pid, thread, thread_name, signal_name, address, .. } = self;
        write!(
            f,
            "{program} (process {pid}) of the guest crashed: {signal_name} at {address} in thread \
             {thread} ({thread_name})"
        )
    }
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * MAX_TEXT)]);
    cleaned(&text).chars().take(MAX_TEXT).collect()
}

/// As kill(1) has it, with its SIG.
pub fn signal_name(number: u32) -> String {
    let name = match i32::try_from(number).unwrap_or_default() {
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return format!("signal {number}"),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_crash_is_told_in_one_line() {
        let report = CrashReport {
            program: b"/bin/\x1b[2Jcrasher".to_vec(),
            command_line: b"crasher\0-x\0\0".to_vec(),
            pid: 7,
            thread: 8,
            thread_name: b"worker\n".to_vec(),
            signal: 11,
            address: 0x10,
            ..CrashReport::default()
        };
        let crash = Crash::new(report, "vm");
        assert_eq!(
            crash.to_string(),
            "/bin/\\u{1b}[2Jcrasher (process 7) of the guest crashed: SIGSEGV at 0x10 in thread 8 \
             (worker\\n)"
        );
        assert_eq!(crash.command, ["crasher", "-x", ""]);
        assert_eq!(crash.machine, "vm");
    }

    proptest! {
        #[test]
        fn any_report_is_bounded(
            program: Vec<u8>, command_line: Vec<u8>, thread_name: Vec<u8>, problem: String,
            pid: u32, signal: u32, long in 0..30_000_usize,
        ) {
            let mut program = program;
            program.resize(program.len() + long, 1);
            let report = CrashReport {
                program, command_line, thread_name, problem, pid, signal, ..CrashReport::default()
            };
            let crash = Crash::new(report, "vm");
            prop_assert!(!crash.to_string().chars().any(char::is_control));
            prop_assert!(serde_json::to_string(&crash).unwrap().len() < 400 << 10);
        }
    }
}
