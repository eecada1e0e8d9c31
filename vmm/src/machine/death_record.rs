//! What is known of the death of a device's process: how it ended, its last words, and what went
//! through its channels before.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Instant;

use executor::{Fd, PollFlags};
use ipc::{Record, Tap};

use super::tracing::Tracer;
use crate::warden::{self, Death, Flow, LogPipe};

/// Messages kept for the record: an activation, and what a driver asks before and after it.
const LAST_MESSAGES: usize = 8;

/// Listens to a process, so that there is something to say when it dies.
#[derive(Debug, Clone)]
pub(super) struct Witness {
    name: Rc<str>,
    tap: Tap,
    log: Rc<RefCell<LogPipe>>,
}

/// A tap for the channels of one process.
pub(super) fn tap() -> Tap {
    Tap::new(LAST_MESSAGES)
}

/// The same for a device whose messages are written down as well.
pub(super) fn traced_tap(tracer: &Tracer, actor: &str) -> Tap {
    match tracer.listener(actor) {
        Some(listener) => tap().with_listener(listener),
        None => tap(),
    }
}

impl Witness {
    pub(super) fn new(name: &str, tap: Tap, log: LogPipe) -> Self {
        Self { name: name.into(), tap, log: Rc::new(RefCell::new(log)) }
    }

    /// Passes on what the process logs, a little at a time.
    pub(super) async fn listen(self) {
        let Err(error) = self.pass_on().await else { return };
        log::warn!("{}: what its process logs is lost: {error}", self.name);
    }

    async fn pass_on(&self) -> std::io::Result<()> {
        let end = rustix::io::fcntl_dupfd_cloexec(&*self.log.borrow(), 0)?;
        let end = Fd::new(end)?;
        loop {
            end.poll(PollFlags::IN).await?;
            if self.log.borrow_mut().pass_on(&self.name) == Flow::Ended {
                return Ok(());
            }
            executor::sleep(warden::REST).await;
        }
    }

    /// The record of a death that has happened.
    pub(super) fn record(&self, death: &Death) -> DeathRecord {
        let mut log = self.log.borrow_mut();
        log.drain(&self.name);
        let reason = match log.last_error() {
            Some(words) if death.is_explained_by_log() => format!("{death}: {words}"),
            _ => death.to_string(),
        };
        let now = Instant::now();
        let last_messages = self.tap.records().iter().map(|record| line(record, now)).collect();
        DeathRecord { pid: death.pid, reason, last_messages }
    }
}

fn line(record: &Record, now: Instant) -> String {
    let Record { at, channel, text, .. } = record;
    format!("{channel} {:.3} s before: {text}", now.saturating_duration_since(*at).as_secs_f64())
}

/// The record of a death.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeathRecord {
    /// What was its number.
    pub(super) pid: i32,
    /// How it ended, in words.
    pub(super) reason: String,
    /// What went through its channels, the oldest first.
    pub(super) last_messages: Vec<String>,
}

impl DeathRecord {
    /// The record of a process that nobody listened to.
    pub(super) fn of(death: &Death) -> Self {
        Self { pid: death.pid, reason: death.to_string(), last_messages: Vec::new() }
    }

    /// Logs what went on before.
    pub(super) fn log_messages(&self, name: &str) {
        for message in &self.last_messages {
            log::warn!("{name}:   {message}");
        }
    }
}

impl fmt::Display for DeathRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ended: {}", self.pid, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use devices::virtio::backend::BackendEvent;

    use super::*;

    #[test]
    fn messages_of_all_channels_are_told_in_order() {
        let tap = tap();
        let (requests, _receiver) = ipc::channel::<u32>(LAST_MESSAGES + 1);
        let requests = requests.tapped(&tap, "request");
        let (sender, events) = ipc::channel(1);
        let mut events = events.tapped(&tap, "event");
        for number in 0..=LAST_MESSAGES as u32 {
            requests.try_send(number).expect("room");
        }
        sender.try_send(BackendEvent::ConfigChanged { config: vec![7] }).expect("room");
        events.try_recv().expect("it is there");
        let records = tap.records();
        let lines: Vec<_> = records.iter().map(|record| line(record, record.at)).collect();
        assert_eq!(lines.len(), LAST_MESSAGES);
        assert_eq!(lines[0], "request 0.000 s before: 2");
        let last = "event 0.000 s before: ConfigChanged { config: [7] }";
        assert_eq!(lines[LAST_MESSAGES - 1], last);
    }
}
