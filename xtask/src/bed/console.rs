//! The serial line of the emulated host: kept in a log, searched for the ready mark, quoted when
//! something fails.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Enough for the last screens of a kernel that died.
const KEPT: usize = 64 * 1024;
/// Lines quoted in an error.
const QUOTED_LINES: usize = 15;

/// Where the serial line also goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    Silent,
    StandardError,
}

#[derive(Default)]
struct State {
    text: Vec<u8>,
    closed: bool,
}

/// What the emulated host and QEMU itself said.
#[derive(Clone, Default)]
pub(crate) struct Console {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Console {
    /// Follows `source` on a thread until it ends.
    pub(crate) fn follow(
        &self,
        mut source: impl Read + Send + 'static,
        log: &Path,
        echo: Echo,
    ) -> Result<()> {
        let mut log =
            File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let console = self.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                let bytes = &buffer[..count];
                // The log is a convenience: a full disk must not end the bed.
                let _ = log.write_all(bytes);
                if echo == Echo::StandardError {
                    let _ = std::io::stderr().write_all(bytes);
                }
                let mut state = console.lock();
                state.text.extend_from_slice(bytes);
                if state.text.len() > 2 * KEPT {
                    let excess = state.text.len() - KEPT;
                    state.text.drain(..excess);
                }
                drop(state);
                console.shared.1.notify_all();
            }
            console.lock().closed = true;
            console.shared.1.notify_all();
        });
        Ok(())
    }

    /// Waits for `mark`; an error when the line ends or the time is over.
    pub(crate) fn wait_for(&self, mark: &str, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if state.text.windows(mark.len()).any(|window| window == mark.as_bytes()) {
                return Ok(());
            }
            if state.closed {
                drop(state);
                bail!("QEMU ended; its last lines:\n{}", self.tail());
            }
            let now = Instant::now();
            if now >= deadline {
                drop(state);
                bail!(
                    "{mark:?} did not appear within {} s; the last lines:\n{}",
                    timeout.as_secs(),
                    self.tail()
                );
            }
            state = self
                .shared
                .1
                .wait_timeout(state, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The last lines, indented for an error message.
    pub(crate) fn tail(&self) -> String {
        let state = self.lock();
        let text = String::from_utf8_lossy(&state.text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let first = lines.len().saturating_sub(QUOTED_LINES);
        let indented: Vec<_> = lines[first..].iter().map(|line| format!("    {line}")).collect();
        indented.join(
            "
",
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
