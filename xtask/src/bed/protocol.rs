//! What the bed's two ends say to each other over a virtio-serial port.
//!
//! ```text
//!   xtask on this machine                     agent on the emulated host
//!     Setup(json) ──────────────────────────▶   mounts the shares
//!                 ◀──────────────────────────  Ready
//!     Exec(json)  ──────────────────────────▶   starts the command
//!     Stdin(bytes), StdinEnd ───────────────▶   at most STDIN_WINDOW bytes without Acknowledged
//!     Signal(number), Resize, Kill ─────────▶
//!                 ◀──────────────────────────  Stdout(bytes), Stderr(bytes), Acknowledged(count)
//!                 ◀──────────────────────────  Done(json) after all output
//! ```
//!
//! A frame is one byte of kind, the payload's length as a little-endian `u32`, and the payload.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The name of the virtio-serial port.
pub(crate) const PORT_NAME: &str = "bed.agent";

/// Standard input that may be under way without an acknowledgement. It bounds the agent's memory
/// and keeps its reader free for signals when the command does not read.
pub(crate) const STDIN_WINDOW: usize = 256 * 1024;

/// Bytes of output or input that one frame carries at most.
pub(crate) const CHUNK: usize = 32 * 1024;

/// No frame is longer; a length beyond it means that the two ends lost step.
const FRAME_MAX: usize = 1024 * 1024;

/// Kind and length.
const HEADER: usize = 5;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Setup = 1,
    Exec,
    Stdin,
    StdinEnd,
    Signal,
    Resize,
    Kill,
    Ready,
    Stdout,
    Stderr,
    Acknowledged,
    Done,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::{
            Acknowledged, Done, Exec, Kill, Ready, Resize, Setup, Signal, Stderr, Stdin, StdinEnd,
            Stdout,
        };
        [
            Setup,
            Exec,
            Stdin,
            StdinEnd,
            Signal,
            Resize,
            Kill,
            Ready,
            Stdout,
            Stderr,
            Acknowledged,
            Done,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) payload: Vec<u8>,
}

/// A folder of this machine that the emulated host mounts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// The 9p tag.
    pub(crate) tag: String,
    /// Where it appears.
    pub(crate) path: PathBuf,
    pub(crate) access: Access,
}

/// What the emulated host may do with a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// The first request after a restore.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) mounts: Vec<Mount>,
    /// Kernel modules of the emulated host that are not in its memory.
    pub(crate) modules: PathBuf,
}

/// A command to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Exec {
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) directory: PathBuf,
    /// A terminal of this size instead of three pipes.
    pub(crate) terminal: Option<Size>,
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    Exited(i32),
    Killed {
        signal: i32,
    },
    /// The agent could not start it.
    NotStarted(String),
}

/// Writes one frame.
pub(crate) fn send(stream: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.push(kind as u8);
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(payload);
    stream.write_all(&frame)
}

/// Writes one frame whose payload is JSON.
pub(crate) fn send_json(
    stream: &mut impl Write,
    kind: Kind,
    value: &impl Serialize,
) -> io::Result<()> {
    send(stream, kind, &serde_json::to_vec(value)?)
}

/// Reads one frame; `None` when the stream ends between two frames.
pub(crate) fn receive(stream: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut header = [0; HEADER];
    if stream.read(&mut header[..1])? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut header[1..])?;
    let (kind, length) = parse_header(header)?;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    Ok(Some(Frame { kind, payload }))
}

fn parse_header(header: [u8; HEADER]) -> io::Result<(Kind, usize)> {
    let [kind, length @ ..] = header;
    let length = u32::from_le_bytes(length) as usize;
    match Kind::from_byte(kind) {
        Some(kind) if length <= FRAME_MAX => Ok((kind, length)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("no frame starts with kind {kind} and length {length}"),
        )),
    }
}

/// Takes frames out of a stream of bytes that arrives in arbitrary pieces.
#[derive(Default)]
pub(crate) struct Parser {
    bytes: Vec<u8>,
}

impl Parser {
    /// Adds bytes that arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if it is there.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame>> {
        let Some(header) = self.bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let (kind, length) = parse_header(*header)?;
        let Some(payload) = self.bytes.get(HEADER..HEADER + length) else {
            return Ok(None);
        };
        let frame = Frame { kind, payload: payload.to_vec() };
        self.bytes.drain(..HEADER + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_arrival_in_single_bytes() {
        let mut stream = Vec::new();
        send(&mut stream, Kind::Stdout, b"abc").unwrap();
        send(&mut stream, Kind::StdinEnd, b"").unwrap();
        let mut parser = Parser::default();
        let mut frames = Vec::new();
        for byte in stream {
            parser.push(&[byte]);
            frames.extend(parser.next().unwrap());
        }
        let kinds: Vec<_> = frames.iter().map(|f| (f.kind, f.payload.as_slice())).collect();
        assert_eq!(kinds, [(Kind::Stdout, b"abc".as_slice()), (Kind::StdinEnd, b"")]);
    }

    #[test]
    fn receive_takes_exactly_one_frame_at_a_time() {
        let mut stream = Vec::new();
        send(&mut stream, Kind::Stdin, &[7; 100]).unwrap();
        send(&mut stream, Kind::Kill, b"").unwrap();
        let mut reader = stream.as_slice();
        assert_eq!(receive(&mut reader).unwrap().unwrap().payload, [7; 100]);
        assert_eq!(receive(&mut reader).unwrap().unwrap().kind, Kind::Kill);
        assert!(receive(&mut reader).unwrap().is_none());
    }

    #[test]
    fn nonsense_is_an_error_and_not_a_long_wait() {
        let mut parser = Parser::default();
        parser.push(&[1, 0xff, 0xff, 0xff, 0xff]);
        assert!(parser.next().is_err());
        assert!(receive(&mut [99u8, 0, 0, 0, 0].as_slice()).is_err());
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_an_error() {
        assert!(receive(&mut [1u8, 4, 0, 0, 0, 9].as_slice()).is_err());
    }
}
