//! User-mode networking: passt carries the guest's connections over the host's own sockets, and
//! needs no privileges for it.
//!
//! ```text
//!   back end ◄── packets with virtio header ──► pump ◄── stream of frames with length ──► passt
//!   (sandboxed)                                (here)
//! ```
//!
//! passt takes frames from a stream. A back end that dies in the middle of a frame would leave such a
//! stream without a beginning or an end, so it gets a socket that keeps packets apart, and the pump,
//! which lives as long as the machine, stands between.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use devices::virtio::net::{Offloads, Tap};
use executor::{Either, Fd, IoBuf, RecvFlags, SendFlags, select};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Mode;
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use crate::config::{HostForward, Protocol};

/// The program; from Debian's package of the same name.
const PASST: &str = "passt";
/// What the guest gets by DHCP: the addresses that users of other VMMs know.
const GUEST_ADDRESS: &str = "10.0.2.15";
const NETMASK: &str = "24";
/// Also how the guest reaches the host's loopback.
const GATEWAY: &str = "10.0.2.2";
/// Stands for the host's name server.
const NAME_SERVER: &str = "10.0.2.3";
/// The largest that passt takes: few large frames instead of many small ones.
const DEFAULT_MTU: u16 = 65520;

/// Bytes of a frame's length in the stream, in network order.
const LENGTH: usize = 4;
/// Bytes of the virtio header before a packet.
const HEADER: usize = 12;
/// Ethernet header and VLAN tag around a packet.
const FRAMING: usize = 18;
/// Frames that wait between passt and the back end, in bytes.
const STREAM_BUFFER: usize = 1 << 20;

/// How long passt may take to be ready.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// Its last words are short.
const MAX_WORDS: usize = 4096;

/// A running passt and the sockets of the pump.
#[derive(Debug)]
pub(super) struct UserNet {
    child: Child,
    passt: OwnedFd,
    back_end: OwnedFd,
}

/// Why there is no user-mode network.
#[derive(Debug, thiserror::Error)]
pub enum UserNetError {
    /// There is no such program.
    #[error("the program `{PASST}` cannot be started")]
    Start(#[source] io::Error),
    /// It ended at once; these are its words.
    #[error("`{PASST}` ended at once: {0}")]
    Ended(String),
    /// It neither serves nor ends.
    #[error("`{PASST}` was not ready after {} seconds", START_DEADLINE.as_secs())]
    Silent,
    /// The host gave no sockets or pipes.
    #[error("cannot make the sockets of a user-mode network")]
    Sockets(#[source] io::Error),
}

impl UserNetError {
    /// What to do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Start(error) if error.kind() == io::ErrorKind::NotFound => {
                Some("install it: `apt-get install passt`; most systems have it by this name")
            }
            Self::Ended(words) if words.contains("bind") => {
                Some("another program has the port; forward another one")
            }
            Self::Start(_) | Self::Sockets(_) | Self::Ended(_) | Self::Silent => None,
        }
    }
}

impl UserNet {
    /// Starts passt. The tap is what the back end works on.
    pub(super) fn start(
        forwards: &[HostForward],
        mtu: Option<u16>,
    ) -> Result<(Self, Tap), super::Error> {
        let mtu = mtu.unwrap_or(DEFAULT_MTU);
        let (passt, theirs) = pair(SocketType::STREAM).map_err(UserNetError::Sockets)?;
        let (back_end, ours) = pair(SocketType::SEQPACKET).map_err(UserNetError::Sockets)?;
        let tap = Tap::from_sockets(vec![back_end], mtu, Offloads::empty())?;
        let child = start_passt(theirs, forwards, mtu)?;
        Ok((Self { child, passt, back_end: ours }, tap))
    }

    /// Carries frames until the machine ends, and with it passt, which sees its socket closed.
    pub(super) async fn pump(mut self) {
        if let Err(error) = self.carry().await {
            let words = self.last_words();
            log::error!("the user-mode network is dead: {error}{words}");
        }
        // The back end's socket stays open: a guest that sends then finds it full, not gone.
        std::future::pending::<()>().await;
    }

    async fn carry(&self) -> io::Result<()> {
        let open = |fd: &OwnedFd| Fd::new(fd.try_clone()?);
        let outward = outward(open(&self.back_end)?, open(&self.passt)?);
        let inward = inward(open(&self.passt)?, open(&self.back_end)?);
        match select(pin!(outward), pin!(inward)).await {
            Either::Left(result) | Either::Right(result) => result,
        }
    }

    /// What it said before it ended, if it has ended.
    fn last_words(&mut self) -> String {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                let words = words_of(&mut self.child);
                format!("; passt ended with {status}: {words}")
            }
            _ => String::new(),
        }
    }
}

impl Drop for UserNet {
    /// Leaves no zombie. passt ends by itself when its socket closes; this is quicker.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pair(kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?)
}

/// Starts passt at the other end of the pump's socket and waits until it serves.
fn start_passt(socket: OwnedFd, forwards: &[HostForward], mtu: u16) -> Result<Child, UserNetError> {
    // It writes its number there when it is ready; the end of the pipe says that it has ended.
    let (ready, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
        .map_err(|errno| UserNetError::Sockets(errno.into()))?;
    // Started by root it becomes nobody first, and has to open it all the same.
    rustix::fs::fchmod(&theirs, Mode::from_raw_mode(0o622))
        .map_err(|errno| UserNetError::Sockets(errno.into()))?;
    let given = [socket.as_raw_fd(), theirs.as_raw_fd()];
    let mut command = Command::new(PASST);
    command
        .args(["--foreground", "--quiet", "--ipv4-only"])
        .args(["--fd", &given[0].to_string()])
        .args(["--pid", &format!("/proc/self/fd/{}", given[1])])
        .args(["--address", GUEST_ADDRESS, "--netmask", NETMASK, "--gateway", GATEWAY])
        .args(["--dns-forward", NAME_SERVER, "--mtu", &mtu.to_string()])
        .args(forwards.iter().flat_map(forward_arguments))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // SAFETY: between fork and exec only system calls are made, on descriptors that are open.
    unsafe {
        command.pre_exec(move || {
            for fd in given {
                rustix::io::fcntl_setfd(BorrowedFd::borrow_raw(fd), FdFlags::empty())?;
            }
            // A terminal's Ctrl-C is for the machine, which then ends in order.
            let _ = rustix::process::setsid();
            Ok(())
        });
    }
    let mut child = command.spawn().map_err(UserNetError::Start)?;
    drop((socket, theirs));
    let problem = match wait_until_ready(&ready) {
        Ok(true) => return Ok(child),
        Ok(false) => UserNetError::Ended(words_of(&mut child)),
        Err(error) => error,
    };
    let _ = child.kill();
    let _ = child.wait();
    Err(problem)
}

/// Whether it serves; false when it has ended.
fn wait_until_ready(ready: &OwnedFd) -> Result<bool, UserNetError> {
    let deadline = Timespec::try_from(START_DEADLINE).expect("some seconds");
    let mut watched = [PollFd::new(ready, PollFlags::IN)];
    let events = rustix::io::retry_on_intr(|| rustix::event::poll(&mut watched, Some(&deadline)))
        .map_err(|errno| UserNetError::Sockets(errno.into()))?;
    if events == 0 {
        return Err(UserNetError::Silent);
    }
    let mut number = [0; 16];
    let read = rustix::io::read(ready, &mut number);
    Ok(read.map_err(|errno| UserNetError::Sockets(errno.into()))? > 0)
}

/// What a passt that has ended said.
fn words_of(child: &mut Child) -> String {
    let mut words = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(MAX_WORDS as u64).read_to_string(&mut words);
    }
    // Without a system logger it complains about each line that it could not log.
    let lines = words
        .lines()
        .filter(|line| !line.contains("to syslog") && !line.starts_with("Don't run as root"));
    lines.collect::<Vec<_>>().join("; ")
}

fn forward_arguments(forward: &HostForward) -> [String; 2] {
    let option = match forward.protocol {
        Protocol::Tcp => "--tcp-ports",
        Protocol::Udp => "--udp-ports",
    };
    let address = forward.address.map(|address| format!("{address}/")).unwrap_or_default();
    [option.to_owned(), format!("{address}{}:{}", forward.host_port, forward.guest_port)]
}

/// From the guest: each packet is a frame behind a header; the end of the header makes room for the
/// length.
async fn outward(back_end: Fd, passt: Fd) -> io::Result<()> {
    let mut buffer = vec![0; HEADER + FRAMING + usize::from(u16::MAX)];
    loop {
        let (received, filled) = back_end.recv(buffer, RecvFlags::empty()).await;
        buffer = filled;
        let packet = received?;
        let Some(frame) = packet.checked_sub(HEADER).filter(|frame| *frame > 0) else {
            if packet == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            continue;
        };
        buffer[HEADER - LENGTH..HEADER].copy_from_slice(&(frame as u32).to_be_bytes());
        let mut sent = HEADER - LENGTH;
        while sent < packet {
            let (result, slice) = passt.send(buffer.slice(sent..packet), SendFlags::NOSIGNAL).await;
            buffer = slice.into_inner();
            sent += result?;
        }
    }
}

/// To the guest: the length and what has been sent already before it make room for the header.
async fn inward(passt: Fd, back_end: Fd) -> io::Result<()> {
    // Behind room for the first header.
    const START: usize = HEADER - LENGTH;
    let mut buffer = vec![0; START + STREAM_BUFFER];
    let mut end = START;
    loop {
        let (received, slice) = passt.recv(buffer.slice(end..), RecvFlags::empty()).await;
        buffer = slice.into_inner();
        match received? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => end += bytes,
        }
        let mut at = START;
        while let Some(length) = buffer[at..end].first_chunk::<LENGTH>() {
            let frame = u32::from_be_bytes(*length) as usize;
            if frame > usize::from(u16::MAX) + FRAMING {
                let reason = format!("passt sent a frame of {frame} bytes");
                return Err(io::Error::other(reason));
            }
            let next = at + LENGTH + frame;
            if next > end {
                break;
            }
            let begin = at + LENGTH - HEADER;
            // One buffer of the driver, unless the device finds that it takes more.
            buffer[begin..begin + HEADER].fill(0);
            buffer[begin + HEADER - 2] = 1;
            let (sent, slice) = back_end.send(buffer.slice(begin..next), SendFlags::NOSIGNAL).await;
            buffer = slice.into_inner();
            sent?;
            at = next;
        }
        buffer.copy_within(at..end, START);
        end = START + (end - at);
    }
}
