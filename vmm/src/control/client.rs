//! The other end of the control socket, for `vmm ctl`.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use devices::dead_holder;
use thiserror::Error;

use super::protocol::{Answer, Event, Frame, Hello, PROTOCOL, Refusal, Request};
use crate::error::Hint;
use crate::outcome;

/// How long a machine may take to answer: a pause waits for what is in flight.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long it may take to say that it is one. It does so first of all and by itself, but listens before its
/// memory is there.
const GREETING_PATIENCE: Duration = Duration::from_secs(10);
/// The longest line of a machine: metrics of many queues.
const LONGEST_LINE: u64 = 64 << 20;

/// Why a machine does not do what it is asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens at the path.
    #[error("cannot reach a machine at `{path}`", path = .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is no socket.
    #[error("`{path}` is no control socket", path = .path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// The machine went away.
    #[error("the machine at `{path}` does not answer", path = .path.display())]
    Lost {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What came is no answer of a machine.
    #[error("what listens at `{path}` is no machine", path = .path.display())]
    Foreign {
        /// The socket.
        path: PathBuf,
    },
    /// It speaks another version.
    #[error(
        "the machine is of vmm {vmm}, whose protocol {protocol} is not this program's {PROTOCOL}"
    )]
    Protocol {
        /// The machine's.
        protocol: u32,
        /// The machine's.
        vmm: String,
    },
    /// It refuses.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

impl Hint for ClientError {
    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Connect { path, source } => connect_hint(path, source),
            Self::NoSocket { .. } | Self::Foreign { .. } => {
                Some("give the path that `vmm run --control` was given".into())
            }
            Self::Lost { .. } => {
                Some("its process has ended or stands still, or this is no machine".into())
            }
            Self::Protocol { .. } => Some("use the `vmm` that runs the machine".into()),
            Self::Refused(refusal) => refusal.hint.clone().map(Cow::Owned),
        }
    }

    fn exit_code(&self) -> u8 {
        outcome::BAD_INPUT
    }
}

fn connect_hint(path: &Path, source: &io::Error) -> Option<Cow<'static, str>> {
    match source.kind() {
        io::ErrorKind::NotFound => {
            Some("it has ended, or was started without `--control` and this path".into())
        }
        io::ErrorKind::ConnectionRefused => {
            Some("the machine that made this socket is gone; the file can be removed".into())
        }
        io::ErrorKind::PermissionDenied => {
            let owner = path.metadata().map(|metadata| metadata.uid());
            let owner = owner.map_or_else(|_| "its owner".to_owned(), |uid| format!("user {uid}"));
            Some(format!("only {owner} and root may control it").into())
        }
        _ => None,
    }
}

fn is_cut_off(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

/// A connection to a machine.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects, and checks who is there.
    ///
    /// The socket of a machine that was killed listens until the kernel has closed the files of its
    /// ring, in the background. Whoever connects meanwhile is cut off, and refused the next time.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let may_be_dead = |error: &ClientError| matches!(error, ClientError::Lost { source, .. } if is_cut_off(source));
        dead_holder::outlast(|| Self::connect_once(path), may_be_dead)
    }

    fn connect_once(path: &Path) -> Result<Self, ClientError> {
        let path = path.to_owned();
        let stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            Err(source) => {
                let is_other = path.metadata().is_ok_and(|found| !found.file_type().is_socket());
                return Err(if is_other {
                    ClientError::NoSocket { path }
                } else {
                    ClientError::Connect { path, source }
                });
            }
        };
        let mut client = Self { path, stream: BufReader::new(stream) };
        client.wait_at_most(Some(GREETING_PATIENCE))?;
        let line =
            client.line()?.ok_or_else(|| client.lost(io::ErrorKind::UnexpectedEof.into()))?;
        client.wait_at_most(Some(PATIENCE))?;
        let hello: Hello = match (serde_json::from_str(&line), serde_json::from_str(&line)) {
            (Ok(hello), _) => hello,
            (_, Ok(Frame::Error(refusal))) => return Err(ClientError::Refused(refusal)),
            _ => return Err(ClientError::Foreign { path: client.path }),
        };
        let Hello { protocol, vmm } = hello;
        if protocol != PROTOCOL {
            return Err(ClientError::Protocol { protocol, vmm });
        }
        Ok(client)
    }

    /// Asks for something and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, ClientError> {
        let sent = serde_json::to_vec(request).map_err(io::Error::other).and_then(|mut line| {
            line.push(b'\n');
            self.stream.get_mut().write_all(&line)
        });
        sent.map_err(|source| self.lost(source))?;
        match self.frame()? {
            Some(Frame::Ok(answer)) => Ok(answer),
            Some(Frame::Error(refusal)) => Err(ClientError::Refused(refusal)),
            Some(Frame::Event(_)) => Err(ClientError::Foreign { path: self.path.clone() }),
            None => Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// After [`Request::Events`]: the next one; none when the machine has ended.
    pub fn event(&mut self) -> Result<Option<Event>, ClientError> {
        self.wait_at_most(None)?;
        match self.frame()? {
            Some(Frame::Event(event)) => Ok(Some(event)),
            Some(_) => Err(ClientError::Foreign { path: self.path.clone() }),
            None => Ok(None),
        }
    }

    /// Waits until the machine has ended.
    pub fn wait_for_end(&mut self) -> Result<(), ClientError> {
        while self.line()?.is_some() {}
        Ok(())
    }

    fn wait_at_most(&self, patience: Option<Duration>) -> Result<(), ClientError> {
        let stream = self.stream.get_ref();
        let set = stream.set_read_timeout(patience).and(stream.set_write_timeout(patience));
        set.map_err(|source| self.lost(source))
    }

    fn frame(&mut self) -> Result<Option<Frame>, ClientError> {
        let Some(line) = self.line()? else { return Ok(None) };
        let frame = serde_json::from_str(&line);
        frame.map(Some).map_err(|_| ClientError::Foreign { path: self.path.clone() })
    }

    fn line(&mut self) -> Result<Option<String>, ClientError> {
        let mut line = String::new();
        let read = (&mut self.stream).take(LONGEST_LINE).read_line(&mut line);
        match read {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(line)),
            // A machine that ends may leave what it had not read.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(ClientError::Foreign { path: self.path.clone() })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(self.lost(io::ErrorKind::TimedOut.into()))
            }
            Err(source) => Err(self.lost(source)),
        }
    }

    fn lost(&self, source: io::Error) -> ClientError {
        ClientError::Lost { path: self.path.clone(), source }
    }
}
