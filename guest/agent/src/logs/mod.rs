//! What the guest logs, on its way to the host.
//!
//! ```text
//!   /dev/log ──datagrams──▶ waiting (bounded) ─┐
//!   /dev/kmsg ─records, only while the host ───┴─▶ batch ──gRPC──▶ port 9999 of the host
//!              listens: the kernel keeps them
//! ```
//!
//! A batch goes when it has 4 KiB or is 5 s old. Programs never wait for the host: what comes while too much
//! waits is counted instead, and the host is told the number.

mod kmsg;
mod ship;
mod syslog;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use proto::v1::{LogRecord, log_record::Source};

use crate::latch::Latch;
#[cfg(feature = "fuzzing")]
pub(crate) use kmsg::parse as parse_kernel_record;
pub(crate) use ship::run;
pub(crate) use syslog::listen;
#[cfg(feature = "fuzzing")]
pub(crate) use syslog::parse as parse_datagram;

/// What waits for a host that does not listen. Some thousand lines.
const WAITING_BYTES: usize = 256 << 10;
/// What a record costs besides its text.
const RECORD_BYTES: usize = 64;

/// Records that wait. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Logs(Rc<State>);

#[derive(Default)]
struct State {
    waiting: RefCell<VecDeque<LogRecord>>,
    bytes: Cell<usize>,
    dropped: Cell<u64>,
    /// Who waits for the next record.
    came: RefCell<Option<Latch<()>>>,
    /// Who wants all of it to be gone.
    flush: RefCell<Option<Latch<()>>>,
}

impl Logs {
    /// Takes a record, or counts it as lost.
    fn push(&self, record: LogRecord) {
        let State { waiting, bytes, dropped, came, .. } = &*self.0;
        let cost = cost(&record);
        if bytes.get() + cost > WAITING_BYTES {
            dropped.set(dropped.get() + 1);
            return;
        }
        bytes.set(bytes.get() + cost);
        waiting.borrow_mut().push_back(record);
        if let Some(latch) = came.take() {
            latch.set(());
        }
    }

    /// Logs what the agent knows of.
    pub(crate) fn say(&self, priority: u32, text: Vec<u8>) {
        self.push(LogRecord { source: Source::User.into(), priority, time_ns: now(), text });
    }

    /// Counts records that are lost.
    fn lose(&self, count: u64) {
        self.0.dropped.set(self.0.dropped.get() + count);
    }

    /// The oldest record.
    fn pop(&self) -> Option<LogRecord> {
        let record = self.0.waiting.borrow_mut().pop_front()?;
        self.0.bytes.set(self.0.bytes.get() - cost(&record));
        Some(record)
    }

    /// Waits until there is a record, or somebody wants all to be sent.
    async fn some(&self) {
        if self.0.waiting.borrow().is_empty() && self.0.flush.borrow().is_none() {
            let latch = Latch::new();
            *self.0.came.borrow_mut() = Some(latch.clone());
            latch.wait().await;
        }
    }

    /// Waits until what was logged before is with the host, if one listens.
    pub(crate) async fn flush(&self) {
        let flushed = self.0.flush.borrow_mut().get_or_insert_with(Latch::new).clone();
        if let Some(latch) = self.0.came.take() {
            latch.set(());
        }
        flushed.wait().await;
    }

    fn is_urgent(&self) -> bool {
        self.0.flush.borrow().is_some()
    }

    /// Says that all is sent, or cannot be.
    fn flushed(&self) {
        if let Some(latch) = self.0.flush.take() {
            latch.set(());
        }
    }
}

fn cost(record: &LogRecord) -> usize {
    record.text.len() + RECORD_BYTES
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_what_is_lost_is_counted() {
        let logs = Logs::default();
        let record = || LogRecord { text: vec![b'x'; 1000], ..LogRecord::default() };
        for _ in 0..1000 {
            logs.push(record());
        }
        let kept = logs.0.waiting.borrow().len();
        assert_eq!(kept, WAITING_BYTES / (1000 + RECORD_BYTES));
        assert_eq!(logs.0.dropped.get(), 1000 - kept as u64);
        while logs.pop().is_some() {}
        assert_eq!(logs.0.bytes.get(), 0);
        logs.push(record());
        assert!(logs.pop().is_some());
    }
}
