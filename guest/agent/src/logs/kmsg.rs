//! `/dev/kmsg`: the kernel's own log, from its first line (the kernel's Documentation/ABI, dev-kmsg).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use executor::{Fd, PollFlags};
use proto::v1::{LogRecord, log_record::Source};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::{Logs, now};

/// The kernel refuses to give a part of a record; its longest has 8 KiB (`CONSOLE_EXT_LOG_MAX`).
const MAX_RECORD_BYTES: usize = 8 << 10;

/// The kernel's log, at the record that comes next.
pub(super) struct Kmsg {
    fd: Fd,
    next: u64,
}

impl Kmsg {
    /// Opens it at the oldest record that the kernel still has.
    pub(super) fn open() -> io::Result<Self> {
        let file: File =
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        Ok(Kmsg { fd: Fd::new(file)?, next: 0 })
    }

    /// Waits until there is a record.
    pub(super) async fn some(&self) -> io::Result<()> {
        self.fd.poll(PollFlags::IN).await.map(drop)
    }

    /// The next record, if there is one.
    pub(super) fn next(&mut self, logs: &Logs) -> Option<LogRecord> {
        let mut buffer = [0; MAX_RECORD_BYTES];
        loop {
            match rustix::io::read(self.fd.as_fd(), &mut buffer) {
                Ok(0) => return None,
                Ok(count) => {
                    let Some((record, number)) = parse(&buffer[..count], now(), uptime_us()) else {
                        continue;
                    };
                    // Those that the kernel overwrote before we came.
                    logs.lose(number.saturating_sub(self.next));
                    self.next = number.saturating_add(1);
                    return Some(record);
                }
                // It overwrote the one that would have been next; the number of the following says so.
                Err(Errno::PIPE | Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
}

fn uptime_us() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    (time.tv_sec as u64).saturating_mul(1_000_000) + time.tv_nsec as u64 / 1000
}

/// `PRIORITY,NUMBER,MICROSECONDS,FLAGS;TEXT`, then lines with more.
pub(crate) fn parse(record: &[u8], now_ns: u64, uptime_us: u64) -> Option<(LogRecord, u64)> {
    let at = record.iter().position(|&byte| byte == b';')?;
    let head = std::str::from_utf8(&record[..at]).ok()?;
    let mut fields = head.split(',').map(str::parse::<u64>);
    let (priority, number, time_us) =
        (fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?);
    let text = record[at + 1..].split(|&byte| byte == b'\n').next().unwrap_or_default();
    let age_ns = uptime_us.saturating_sub(time_us).saturating_mul(1000);
    let record = LogRecord {
        // Facility 0 is the kernel's; programs that write to /dev/kmsg have others.
        source: if priority < 8 { Source::Kernel } else { Source::User }.into(),
        priority: u32::try_from(priority).ok()?,
        time_ns: now_ns.saturating_sub(age_ns),
        text: unescape(text),
    };
    Some((record, number))
}

/// The kernel writes bytes that are not printable as `\x1b`. The host does that in its own way, so that all
/// logs are treated alike.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let code = rest.get(..4).filter(|code| code.starts_with(b"\\x"));
        let code = code.and_then(|code| std::str::from_utf8(&code[2..]).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(code) => {
                plain.push(code);
                rest = &rest[4..];
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_have_times_and_numbers() {
        let line = b"6,339,5140900,-;NET: \\x1b[2J\\\n SUBSYSTEM=net\n";
        let (record, number) = parse(line, 10_000_000_000, 6_140_900).unwrap();
        assert_eq!((record.priority, number, record.time_ns), (6, 339, 9_000_000_000));
        assert_eq!(record.text, b"NET: \x1b[2J\\");
        assert_eq!(record.source(), Source::Kernel);
        let (record, _) = parse(b"12,1,0,-;x", 0, 0).unwrap();
        assert_eq!(record.source(), Source::User);
        assert!(parse(b"6,339;x", 0, 0).is_none());
    }

    proptest! {
        #[test]
        fn any_record_is_read(record: Vec<u8>, now: u64, uptime: u64) {
            let _ = parse(&record, now, uptime);
        }
    }
}
