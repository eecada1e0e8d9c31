//! This machine's end of the bed: runs commands on an emulated host that is up.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::counts;
use super::protocol::{self, CHUNK, Ending, Exec, Frame, Kind, Mount, Parser, Setup, Size};
use super::qemu::Machine;
use super::stdin::Stdin;
use crate::project;

/// The agent answers within a second; a machine that is busy with builds needs more.
const SETUP_TIMEOUT: Duration = Duration::from_secs(20);
/// The console's name in the run folder and, afterwards, in the bed's.
pub(crate) const CONSOLE_LOG: &str = "console.log";
/// After a kill, everything of the command has ended within this.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ended(Ending),
    /// It was killed because its time was over.
    TimedOut,
}

/// What goes to a command's standard input.
#[derive(Clone, Copy)]
pub(crate) enum Input {
    Empty,
    /// What comes to ours.
    Inherited,
}

/// An emulated host with its agent.
pub(crate) struct Session {
    machine: Machine,
    remote: Remote,
    parser: Parser,
    /// Our input, once a command takes it.
    stdin: Option<Stdin>,
    /// The folder behind the run share; it goes when the session does.
    run_folder: PathBuf,
}

/// Sends frames to the agent, from any thread.
#[derive(Clone)]
pub(crate) struct Remote {
    stream: Arc<Mutex<UnixStream>>,
}

impl Remote {
    /// Sends a signal to the command.
    pub(crate) fn signal(&self, number: u8) -> Result<()> {
        self.send(Kind::Signal, &[number])
    }

    /// Tells the command's terminal its new size.
    pub(crate) fn resize(&self, size: Size) -> Result<()> {
        self.send(Kind::Resize, &serde_json::to_vec(&size)?)
    }

    pub(crate) fn send(&self, kind: Kind, payload: &[u8]) -> Result<()> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        protocol::send(&mut *stream, kind, payload).context("the emulated host does not listen")
    }
}

impl Session {
    /// Wakes the agent of a restored machine up and mounts the shares.
    pub(crate) fn open(
        mut machine: Machine,
        mounts: Vec<Mount>,
        modules: PathBuf,
        run_folder: PathBuf,
    ) -> Result<Self> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        machine.say(&format!("{seconds} bin/agent\n"))?;
        let stream = machine.agent.try_clone()?;
        stream.set_write_timeout(Some(SETUP_TIMEOUT))?;
        let remote = Remote { stream: Arc::new(Mutex::new(stream)) };
        let mut session =
            Self { machine, remote, parser: Parser::default(), stdin: None, run_folder };
        let setup = serde_json::to_vec(&Setup { mounts, modules })?;
        let ready = session.remote.send(Kind::Setup, &setup).and_then(|()| {
            let frame = session.next(Instant::now() + SETUP_TIMEOUT)?;
            match frame {
                Some(Frame { kind: Kind::Ready, .. }) => Ok(()),
                Some(frame) => bail!("the agent answered with {:?}", frame.kind),
                None => bail!("the agent did not answer within {} s", SETUP_TIMEOUT.as_secs()),
            }
        });
        ready.with_context(|| session.lost("the emulated host did not come up"))?;
        Ok(session)
    }

    /// For signals and sizes while a command runs.
    pub(crate) fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// Runs a command to its end. An error means that the host itself is lost.
    pub(crate) fn run(
        &mut self,
        exec: &Exec,
        timeout: Option<Duration>,
        input: Input,
        stdout: &mut dyn Write,
        stderr: &mut dyn Write,
    ) -> Result<Outcome> {
        self.remote.send(Kind::Exec, &serde_json::to_vec(exec)?)?;
        let stdin = match input {
            Input::Empty => {
                self.remote.send(Kind::StdinEnd, b"")?;
                None
            }
            Input::Inherited => {
                let remote = self.remote.clone();
                let stdin = self.stdin.get_or_insert_with(|| Stdin::start(&remote)).clone();
                stdin.open(&remote);
                Some(stdin)
            }
        };
        let outcome = self.relay(timeout, stdin.as_ref(), stdout, stderr);
        if let Some(stdin) = stdin {
            stdin.close();
        }
        outcome.with_context(|| self.lost("the emulated host was lost"))
    }

    /// What happened, with the last that was heard.
    fn lost(&self, what: &str) -> String {
        format!("{what}; its last lines:\n{}\n  cause", self.machine.console.tail())
    }

    fn relay(
        &mut self,
        timeout: Option<Duration>,
        stdin: Option<&Stdin>,
        stdout: &mut dyn Write,
        stderr: &mut dyn Write,
    ) -> Result<Outcome> {
        let far = Duration::from_hours(365 * 24);
        let mut deadline = Instant::now() + timeout.unwrap_or(far);
        let mut timed_out = false;
        loop {
            let Some(frame) = self.next(deadline)? else {
                if timed_out {
                    bail!("the emulated host could not kill the command that ran out of time");
                }
                timed_out = true;
                counts::add(counts::Event::Timeout)?;
                self.remote.send(Kind::Kill, b"")?;
                deadline = Instant::now() + KILL_TIMEOUT;
                continue;
            };
            match frame.kind {
                // Nobody reads our output any more: that is for the command to learn, by a signal.
                Kind::Stdout => relay_output(stdout, &frame.payload, &self.remote)?,
                Kind::Stderr => relay_output(stderr, &frame.payload, &self.remote)?,
                Kind::Acknowledged => {
                    let count = frame.payload.first_chunk().copied().map_or(0, u32::from_le_bytes);
                    if let Some(stdin) = stdin {
                        stdin.acknowledge(count as usize);
                    }
                }
                Kind::Done if timed_out => return Ok(Outcome::TimedOut),
                Kind::Done => return Ok(Outcome::Ended(serde_json::from_slice(&frame.payload)?)),
                kind => bail!("the agent sent {kind:?} while a command ran"),
            }
        }
    }

    /// The next frame, or `None` when the deadline has passed.
    fn next(&mut self, deadline: Instant) -> Result<Option<Frame>> {
        let mut buffer = vec![0; 2 * CHUNK];
        loop {
            if let Some(frame) = self.parser.next()? {
                return Ok(Some(frame));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.machine.agent.set_read_timeout(Some(left))?;
            match self.machine.agent.read(&mut buffer) {
                Ok(0) => bail!("the emulated host ended"),
                Ok(count) => self.parser.push(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot read from the emulated host"),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Only the last console stays, for whoever wonders what happened.
        let log = self.run_folder.join(CONSOLE_LOG);
        let _ = fs::rename(log, project::bed().join(CONSOLE_LOG));
        let _ = fs::remove_dir_all(&self.run_folder);
    }
}

fn relay_output(output: &mut dyn Write, bytes: &[u8], remote: &Remote) -> Result<()> {
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            remote.signal(rustix::process::Signal::PIPE.as_raw() as u8)
        }
        result => result.context("cannot pass the command's output on"),
    }
}
