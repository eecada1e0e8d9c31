//! The host's side of a network: a tap, opened before any sandbox is entered.
//!
//! ```text
//!   VMM process                                     back end, perhaps in a sandbox
//!   Tap::open ── checks, flags, MTU, probing ──►    Tap (serde, descriptors travel beside it)
//!   needs CAP_NET_ADMIN to make an interface        reads, writes, TUNSETOFFLOAD, TUNSETQUEUE
//! ```

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::error::NetError;
use super::offload::Offloads;
use super::tun::{self, InterfaceName, QueueState};
use crate::dead_holder;

/// Most queue pairs of a network.
pub const MAX_QUEUE_PAIRS: u16 = 16;
/// The MTU of Ethernet.
pub const DEFAULT_MTU: u16 = 1500;
/// The smallest and largest MTU: what IPv4 asks for, and what a tap's frames leave.
const MTU_RANGE: std::ops::RangeInclusive<u16> = 68..=65521;

/// Where a tap comes from.
#[derive(Debug)]
pub enum TapSource {
    /// An interface of this name. It is made, and goes with the last descriptor, if there is none.
    Name(String),
    /// An interface that is made, with a name of the kernel's choice.
    New,
    /// Open descriptors, one for each queue pair.
    Descriptors(Vec<OwnedFd>),
}

/// What is asked of a tap.
#[derive(Debug)]
pub struct TapOptions {
    /// Where it comes from.
    pub source: TapSource,
    /// Queue pairs, 1 to 16. With [`TapSource::Descriptors`] their number counts.
    pub queue_pairs: u16,
    /// The interface's MTU is set to this. None leaves it.
    pub mtu: Option<u16>,
    /// An address and the length of its network's prefix, for an interface that is made.
    pub address: Option<(Ipv4Addr, u8)>,
}

impl TapOptions {
    /// One queue pair and the interface's MTU.
    pub fn new(source: TapSource) -> Self {
        Self { source, queue_pairs: 1, mtu: None, address: None }
    }
}

/// An open tap that is ready to carry frames. It can be sent to another process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tap {
    pub(super) queues: Vec<ipc::Fd>,
    pub(super) kind: Kind,
    name: String,
    mtu: u16,
    offloads: Offloads,
}

/// What the descriptors are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// A tap: the kernel makes and checks headers.
    Tap,
    /// Sockets that keep frames apart, with headers by whoever is at the other end.
    Socket,
}

impl Tap {
    /// Open, check and set up a tap.
    pub fn open(options: TapOptions) -> Result<Self, NetError> {
        if let Some(mtu) = options.mtu.filter(|mtu| !MTU_RANGE.contains(mtu)) {
            return Err(NetError::Mtu { mtu });
        }
        match options.source {
            TapSource::Name(name) => {
                let interface = InterfaceName::new(&name).filter(|_| !name.contains('%'));
                let interface = interface.ok_or(NetError::Name { name })?;
                Self::attach(interface, options.queue_pairs, options.mtu, options.address)
            }
            TapSource::New => {
                let interface = InterfaceName::new("vmtap%d").expect("a name with a number");
                Self::attach(interface, options.queue_pairs, options.mtu, options.address)
            }
            TapSource::Descriptors(descriptors) => Self::adopt(descriptors, options.mtu),
        }
    }

    /// A network over sockets that keep packets apart (`SOCK_SEQPACKET`, `SOCK_DGRAM`), one for each
    /// queue pair: each packet is a frame behind the 12 bytes of a virtio header. Two machines can
    /// be connected so without privileges. Frames that need more than `offloads` are dropped.
    pub fn from_sockets(
        sockets: Vec<OwnedFd>,
        mtu: u16,
        offloads: Offloads,
    ) -> Result<Self, NetError> {
        check_pairs(sockets.len())?;
        if !MTU_RANGE.contains(&mtu) {
            return Err(NetError::Mtu { mtu });
        }
        let name = format!("socket {}", sockets[0].as_raw_fd());
        for socket in &sockets {
            set_nonblocking(socket).map_err(system(&name, "make non-blocking the"))?;
        }
        Ok(Self {
            queues: sockets.into_iter().map(ipc::Fd::new).collect(),
            kind: Kind::Socket,
            name,
            mtu,
            offloads: offloads.consistent(),
        })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's MTU.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Queue pairs.
    pub fn queue_pairs(&self) -> u16 {
        self.queues.len() as u16
    }

    /// What it can leave to a driver, and take over from one.
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// The descriptor of a queue pair: whole frames, each behind a virtio header, without waiting.
    pub fn queue(&self, pair: u16) -> Option<BorrowedFd<'_>> {
        self.queues.get(usize::from(pair)).map(ipc::Fd::as_fd)
    }

    /// Have frames come that may need these, as for a driver that takes them on.
    pub fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        tun::set_offloads(&self.queues[0], offloads)
    }

    /// A second handle of the same tap.
    pub fn try_clone(&self) -> io::Result<Self> {
        let queues = self.queues.iter().map(ipc::Fd::try_clone).collect::<io::Result<_>>()?;
        let name = self.name.clone();
        Ok(Self { queues, kind: self.kind, name, mtu: self.mtu, offloads: self.offloads })
    }

    /// Attach to an interface by name; one that does not exist is made and brought up.
    fn attach(
        interface: InterfaceName,
        pairs: u16,
        mtu: Option<u16>,
        address: Option<(Ipv4Addr, u8)>,
    ) -> Result<Self, NetError> {
        check_pairs(pairs.into())?;
        let asked = interface.to_string();
        let index = || tun::index(interface).map_err(system(&asked, "look for the interface of"));
        let before = index()?;
        let (first, interface, flags) = attach_first(interface, pairs)?;
        // What was there may have gone with the one who had it, and this is another.
        let existed = before.is_some() && index()? == before;
        let name = interface.to_string();
        let mut queues = vec![first];
        while queues.len() < usize::from(pairs) {
            let queue = open_device()?;
            tun::attach(&queue, interface, flags).map_err(|source| {
                let name = name.clone();
                NetError::Attach { name, queues: pairs, source }
            })?;
            queues.push(queue);
        }
        if !existed && let Some((address, prefix)) = address {
            tun::set_address(interface, address.octets(), prefix)
                .map_err(system(&name, "set the address of"))?;
        }
        let tap = Self::finish(queues, interface, mtu)?;
        if !existed {
            tun::bring_up(interface).map_err(system(&name, "bring up"))?;
        }
        Ok(tap)
    }

    /// Take descriptors that somebody else opened.
    fn adopt(descriptors: Vec<OwnedFd>, mtu: Option<u16>) -> Result<Self, NetError> {
        check_pairs(descriptors.len())?;
        let mut interface: Option<InterfaceName> = None;
        for fd in &descriptors {
            let descriptor = fd.as_raw_fd();
            let (name, flags) =
                tun::interface(fd).map_err(|source| NetError::NotTap { descriptor, source })?;
            for (flag, missing) in [
                (tun::IFF_TAP, "IFF_TAP"),
                (tun::IFF_NO_PI, "IFF_NO_PI"),
                (tun::IFF_VNET_HDR, "IFF_VNET_HDR"),
            ] {
                if flags & flag == 0 {
                    let name = name.to_string();
                    return Err(NetError::Mode { descriptor, name, flags: missing });
                }
            }
            if let Some(other) = interface.filter(|other| *other != name) {
                let (name, other) = (name.to_string(), other.to_string());
                return Err(NetError::Mixed { name, other });
            }
            set_nonblocking(fd).map_err(system(&name.to_string(), "make non-blocking"))?;
            interface = Some(name);
        }
        let interface = interface.expect("at least one descriptor was checked");
        Self::finish(descriptors, interface, mtu)
    }

    fn finish(
        queues: Vec<OwnedFd>,
        interface: InterfaceName,
        mtu: Option<u16>,
    ) -> Result<Self, NetError> {
        let name = interface.to_string();
        for queue in &queues {
            tun::set_header_length(queue).map_err(system(&name, "set the header length of"))?;
            tun::set_unlimited(queue).map_err(system(&name, "set the send buffer of"))?;
        }
        let mtu = match mtu {
            Some(mtu) => {
                tun::set_mtu(interface, mtu).map_err(system(&name, "set the MTU of"))?;
                mtu
            }
            // An interface in another network namespace cannot be asked: its descriptors work all
            // the same.
            None => tun::mtu(interface)
                .ok()
                .and_then(|mtu| u16::try_from(mtu).ok())
                .filter(|mtu| MTU_RANGE.contains(mtu))
                .unwrap_or(DEFAULT_MTU),
        };
        let offloads = probe_offloads(&queues[0]);
        let queues = queues.into_iter().map(ipc::Fd::new).collect();
        Ok(Self { queues, kind: Kind::Tap, name, mtu, offloads })
    }
}

/// Let frames through the first `active` queues only, whatever was before.
pub(super) fn activate_queues(queues: &[impl AsFd], active: usize) -> io::Result<()> {
    for (index, queue) in queues.iter().enumerate() {
        let state = if index < active { QueueState::Attached } else { QueueState::Detached };
        match tun::set_queue(queue, state) {
            // It is in that state already.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            other => other?,
        }
    }
    Ok(())
}

fn check_pairs(pairs: usize) -> Result<(), NetError> {
    if (1..=usize::from(MAX_QUEUE_PAIRS)).contains(&pairs) {
        Ok(())
    } else {
        Err(NetError::Queues { queues: pairs })
    }
}

fn open_device() -> Result<OwnedFd, NetError> {
    tun::open().map_err(|source| NetError::Device { source })
}

/// Attach the first queue; says which interface it is and in which mode the others follow.
fn attach_first(
    interface: InterfaceName,
    pairs: u16,
) -> Result<(OwnedFd, InterfaceName, std::ffi::c_short), NetError> {
    let single = tun::IFF_TAP | tun::IFF_NO_PI | tun::IFF_VNET_HDR;
    let multiple = single | tun::IFF_MULTI_QUEUE;
    let fd = open_device()?;
    let mut flags = if pairs > 1 { multiple } else { single };
    let mut attached = attach_patiently(&fd, interface, flags);
    if let Err(error) = &attached
        && error.raw_os_error() == Some(libc::EINVAL)
        && pairs == 1
    {
        // An interface of several queues takes a single one, too, but wants it said.
        flags = multiple;
        attached = attach_patiently(&fd, interface, flags);
    }
    let name = interface.to_string();
    let attached = attached.map_err(|source| NetError::Attach { name, queues: pairs, source })?;
    Ok((fd, attached, flags))
}

/// Attach, also to a tap that a machine has just let go of.
fn attach_patiently(
    fd: &OwnedFd,
    interface: InterfaceName,
    flags: std::ffi::c_short,
) -> io::Result<InterfaceName> {
    let is_busy = |error: &io::Error| error.raw_os_error() == Some(libc::EBUSY);
    dead_holder::outlast(|| tun::attach(fd, interface, flags), is_busy)
}

/// What the kernel's tap can do, by asking for less and less. Afterwards nothing is on.
fn probe_offloads(queue: &OwnedFd) -> Offloads {
    let uso = Offloads::USO4 | Offloads::USO6;
    let all = Offloads::all();
    let ladder =
        [all, all - uso, all - Offloads::UFO, all - uso - Offloads::UFO, Offloads::CHECKSUM];
    let found = ladder.into_iter().find(|offloads| tun::set_offloads(queue, *offloads).is_ok());
    // Until a driver says what it takes.
    let _ = tun::set_offloads(queue, Offloads::empty());
    found.unwrap_or_default()
}

fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

fn system<'a>(name: &'a str, action: &'static str) -> impl FnOnce(io::Error) -> NetError + 'a {
    move |source| NetError::System { name: name.to_owned(), action, source }
}
