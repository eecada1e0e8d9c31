//! A host for test cases: this machine or an emulated one, whichever can run stock Linux.

use std::fmt;
use std::io::{Seek, Write};
use std::os::unix::process::CommandExt;
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
        match self.kind {
            Kind::Native => run_here(&self.environment, script, timeout, output),
            Kind::Emulated => {
                if self.session.is_none() {
                    self.session = Some(open_session(&Options::default())?.0);
                }
                let session = self.session.as_mut().context("there is no emulated host")?;
                let command = words(script).map(str::to_owned).to_vec();
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

    /// The same on this machine, whatever the host is.
    pub(crate) fn run_beside(
        script: &str,
        timeout: Duration,
        output: &mut dyn Write,
    ) -> Result<Outcome> {
        run_here(&Environment::native()?, script, timeout, output)
    }
}

/// A shell with one stream of output, so that lines stay in order.
fn words(script: &str) -> [&str; 5] {
    ["sh", "-c", "exec 2>&1; eval \"$1\"", "sh", script]
}

fn run_here(
    environment: &Environment,
    script: &str,
    timeout: Duration,
    output: &mut dyn Write,
) -> Result<Outcome> {
    let folder = tempfile::tempdir().context("cannot make a working folder")?;
    // A file: what a script leaves behind would keep a pipe open.
    let mut kept = tempfile::tempfile().context("cannot make a file for the output")?;
    let mut child = Command::new("timeout")
        .args(["--kill-after=5", &timeout.as_secs().to_string()])
        .args(words(script))
        .envs(environment.variables.iter().map(|(name, value)| (name, value)))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(kept.try_clone()?)
        .process_group(0)
        .spawn()
        .context("cannot start timeout")?;
    let group = rustix::process::Pid::from_child(&child);
    let status = child.wait()?;
    // Nobody is left in most cases.
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    kept.rewind()?;
    std::io::copy(&mut kept, output)?;
    match status.code() {
        Some(TIMED_OUT) => {
            counts::add(counts::Event::Timeout)?;
            Ok(Outcome::TimedOut)
        }
        Some(code) => Ok(Outcome::Ended(Ending::Exited(code))),
        None => Ok(Outcome::TimedOut),
    }
}
