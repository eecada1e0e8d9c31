//! A host for test cases: this machine or an emulated one, whichever can run stock Linux.

use std::fmt;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::native::{self, Verdict};
use super::protocol::Ending;
use super::session::{Input, Outcome, Session};
use super::{Environment, Options, counts, open_session};

/// What `timeout` says when it killed its command.
const TIMED_OUT: i32 = 124;

/// Which kind of host it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Native,
    Emulated,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Native => "natively on this machine",
            Self::Emulated => "on the emulated host (QEMU TCG with SVM)",
        })
    }
}

/// A host that runs one command after another.
pub(crate) struct Host {
    environment: Environment,
    /// None where this machine is the host, and after an emulated one was lost.
    session: Option<Session>,
    kind: Kind,
}

impl Host {
    /// Finds out which kind this machine needs and brings it up.
    pub(crate) fn open() -> Result<Self> {
        if matches!(native::probe(), Verdict::Native { .. }) {
            let environment = Environment::native()?;
            return Ok(Self { environment, session: None, kind: Kind::Native });
        }
        let (session, environment) = open_session(&Options::default())?;
        Ok(Self { environment, session: Some(session), kind: Kind::Emulated })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Runs a shell script without input; both outputs go to `output`. An error means that the
    /// host was lost; the next script gets a new one.
    pub(crate) fn run(
        &mut self,
        script: &str,
        timeout: Duration,
        output: &mut dyn Write,
    ) -> Result<Outcome> {
        // One stream, so that lines stay in order.
        let words = ["sh", "-c", "exec 2>&1; eval \"$1\"", "sh", script];
        match self.kind {
            Kind::Native => self.run_native(&words, timeout, output),
            Kind::Emulated => {
                if self.session.is_none() {
                    self.session = Some(open_session(&Options::default())?.0);
                }
                let session = self.session.as_mut().context("there is no emulated host")?;
                let command = words.map(str::to_owned).to_vec();
                let exec = self.environment.exec(command, None);
                let mut errors = Vec::new();
                let result = session.run(&exec, Some(timeout), Input::Empty, output, &mut errors);
                if result.is_err() {
                    self.session = None;
                }
                output.write_all(&errors)?;
                result
            }
        }
    }

    fn run_native(
        &self,
        words: &[&str],
        timeout: Duration,
        output: &mut dyn Write,
    ) -> Result<Outcome> {
        let mut child = Command::new("timeout")
            .args(["--kill-after=5", &timeout.as_secs().to_string()])
            .args(words)
            .envs(self.environment.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start timeout")?;
        let mut stdout = child.stdout.take().context("the command has no output")?;
        std::io::copy(&mut stdout, output)?;
        let status = child.wait()?;
        match status.code() {
            Some(TIMED_OUT) => {
                counts::add(counts::Event::Timeout)?;
                Ok(Outcome::TimedOut)
            }
            Some(code) => Ok(Outcome::Ended(Ending::Exited(code))),
            None => Ok(Outcome::TimedOut),
        }
    }
}
