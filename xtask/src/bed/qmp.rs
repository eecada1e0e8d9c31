//! QEMU's machine protocol: JSON lines over a socket, an answer to each command and events between.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// QEMU answers at once, whatever its guest does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a migration is asked for its state.
const MIGRATION_POLL: Duration = Duration::from_millis(5);

/// A connection that is ready for commands.
pub(crate) struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Reads the greeting and leaves negotiation mode.
    pub(crate) fn connect(socket: UnixStream) -> Result<Self> {
        socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let mut qmp = Self { reader: BufReader::new(socket) };
        let greeting = qmp.message().context("QEMU sent no greeting")?;
        if greeting.get("QMP").is_none() {
            bail!("QEMU greeted with {greeting}");
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returned.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.reader
            .get_mut()
            .write_all(line.as_bytes())
            .with_context(|| format!("cannot send {command} to QEMU"))?;
        loop {
            let mut message =
                self.message().with_context(|| format!("no answer to {command} from QEMU"))?;
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = message.get("error") {
                bail!("QEMU refused {command}: {}", error["desc"].as_str().unwrap_or("no reason"));
            }
        }
    }

    /// Waits until a migration in either direction is over.
    pub(crate) fn wait_migration(&mut self, timeout: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let state = self.execute("query-migrate", &json!({}))?;
            match state["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    bail!("the state did not transfer: {}", state["error-desc"])
                }
                _ if start.elapsed() > timeout => {
                    bail!("the state did not transfer within {} s", timeout.as_secs())
                }
                _ => std::thread::sleep(MIGRATION_POLL),
            }
        }
    }

    fn message(&mut self) -> Result<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => bail!("QEMU closed the connection"),
            Ok(_) => serde_json::from_str(&line).with_context(|| format!("QEMU sent {line:?}")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                bail!("nothing came within {} s", ANSWER_TIMEOUT.as_secs())
            }
            Err(error) => Err(error.into()),
        }
    }
}
