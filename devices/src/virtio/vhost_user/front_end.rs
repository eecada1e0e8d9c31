//! The front end's side of the protocol: what a machine, a load generator and tests say to a back end.
//!
//! It waits for each answer, so that whatever a back end does not like is known at once. Answers are untrusted.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::message::{
    ConfigPart, FEATURE_PROTOCOL, Header, InflightMemory, LONGEST_PAYLOAD, RegionCount,
    RegionMessage, Request, RingAddresses, RingNumber, protocol,
};
use super::wire;
use crate::virtio::queue::QueueLayout;

/// How long a back end may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a front end needs of a back end, where it has it.
const WANTED: u64 = protocol::MQ
    | protocol::REPLY_ACK
    | protocol::CONFIG
    | protocol::INFLIGHT_SHMFD
    | protocol::RESET_DEVICE;

/// Why a back end cannot be used.
#[derive(Debug, Error)]
pub enum FrontEndError {
    /// The conversation broke off.
    #[error("{request}: {source}")]
    Broken {
        /// What was being asked.
        request: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It answered something else than was asked.
    #[error("{0}: the answer makes no sense")]
    Nonsense(&'static str),
    /// It would not do it.
    #[error("{0}: the back end refuses")]
    Refused(&'static str),
}

/// A region of guest memory: one file, which is mapped here as a whole.
#[derive(Debug, Clone, Copy)]
pub struct SharedRegion<'a> {
    /// The guest's address.
    pub guest: u64,
    /// Bytes.
    pub size: u64,
    /// The memory.
    pub file: BorrowedFd<'a>,
    /// Where in it the region begins.
    pub offset: u64,
}

/// A connection with a back end.
#[derive(Debug)]
pub struct FrontEnd {
    socket: UnixStream,
    protocol_features: u64,
}

impl FrontEnd {
    /// Agrees on the protocol's features over a connection.
    pub fn new(socket: UnixStream) -> Result<Self, FrontEndError> {
        Self::with_patience(socket, PATIENCE)
    }

    /// [`FrontEnd::new`] for a back end that may take so long for an answer.
    pub fn with_patience(socket: UnixStream, patience: Duration) -> Result<Self, FrontEndError> {
        let broken = |source| FrontEndError::Broken { request: "set up the socket", source };
        socket.set_read_timeout(Some(patience)).map_err(broken)?;
        socket.set_write_timeout(Some(patience)).map_err(broken)?;
        let mut front_end = Self { socket, protocol_features: 0 };
        front_end.tell(Request::SetOwner, "SET_OWNER", &[], &[])?;
        let features = front_end.features()?;
        if features & FEATURE_PROTOCOL != 0 {
            let request = (Request::GetProtocolFeatures, "GET_PROTOCOL_FEATURES");
            let offered: u64 = front_end.ask(request, &[])?;
            let wanted = offered & WANTED;
            let bytes = wanted.as_bytes();
            front_end.send(Request::SetProtocolFeatures, "SET_PROTOCOL_FEATURES", bytes, &[])?;
            front_end.protocol_features = wanted;
        }
        Ok(front_end)
    }

    /// Goes on with a connection whose [`FrontEnd::agreed`] is known.
    pub fn resume(socket: UnixStream, agreed: u64) -> Self {
        Self { socket, protocol_features: agreed }
    }

    /// What was agreed on of the protocol's own features.
    pub fn agreed(&self) -> u64 {
        self.protocol_features
    }

    /// The connection, to see whether it ends.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// The connection for [`FrontEnd::resume`].
    pub fn into_socket(self) -> UnixStream {
        self.socket
    }

    /// Whether it has a configuration space of its own.
    pub fn has_config(&self) -> bool {
        self.protocol_features & protocol::CONFIG != 0
    }

    /// The virtio features that it offers, with the bit for the protocol's own.
    pub fn features(&mut self) -> Result<u64, FrontEndError> {
        self.ask((Request::GetFeatures, "GET_FEATURES"), &[])
    }

    /// Agrees on virtio features; those of the protocol are added.
    pub fn set_features(&mut self, features: u64) -> Result<(), FrontEndError> {
        let protocol = if self.protocol_features == 0 { 0 } else { FEATURE_PROTOCOL };
        let features = features | protocol;
        self.tell(Request::SetFeatures, "SET_FEATURES", features.as_bytes(), &[])
    }

    /// How many queues it can serve; one where it cannot tell.
    pub fn queue_count(&mut self) -> Result<u64, FrontEndError> {
        if self.protocol_features & protocol::MQ == 0 {
            return Ok(1);
        }
        self.ask((Request::GetQueueNum, "GET_QUEUE_NUM"), &[])
    }

    /// Reads the beginning of the configuration space.
    pub fn config(&mut self, length: u32) -> Result<Vec<u8>, FrontEndError> {
        let name = "GET_CONFIG";
        let part = ConfigPart { offset: 0, size: length, flags: 0 };
        let mut payload = part.as_bytes().to_vec();
        payload.resize(payload.len() + length as usize, 0);
        self.send(Request::GetConfig, name, &payload, &[])?;
        let (answer, _) = self.receive(name)?;
        // A back end that cannot, answers with nothing.
        let config = answer.get(size_of::<ConfigPart>()..).filter(|rest| !rest.is_empty());
        config.map(<[u8]>::to_vec).ok_or(FrontEndError::Refused(name))
    }

    /// Hands the guest's memory over. Addresses of this process are the guest's.
    pub fn set_memory(&mut self, regions: &[SharedRegion<'_>]) -> Result<(), FrontEndError> {
        let mut payload = RegionCount::of(regions.len() as u32).as_bytes().to_vec();
        for region in regions {
            let SharedRegion { guest, size, offset, .. } = *region;
            let message = RegionMessage { guest, size, user: guest, offset };
            payload.extend_from_slice(message.as_bytes());
        }
        let files: Vec<_> = regions.iter().map(|region| region.file).collect();
        self.tell(Request::SetMemTable, "SET_MEM_TABLE", &payload, &files)
    }

    /// Has the back end keep its record of what is in flight in memory of which this side has a
    /// handle, for [`FrontEnd::restore_inflight`] of a later connection. None where it keeps none.
    pub fn inflight(
        &mut self,
        queues: u16,
        queue_size: u16,
    ) -> Result<Option<InflightHandle>, FrontEndError> {
        if self.protocol_features & protocol::INFLIGHT_SHMFD == 0 {
            return Ok(None);
        }
        let name = "GET_INFLIGHT_FD";
        let asked = InflightMemory { size: 0, offset: 0, queues, queue_size, padding: [0; 4] };
        self.send(Request::GetInflightFd, name, asked.as_bytes(), &[])?;
        let (answer, mut files) = self.receive(name)?;
        let memory =
            InflightMemory::read_from_bytes(&answer).map_err(|_| FrontEndError::Nonsense(name))?;
        let handle = files.pop().map(|file| InflightHandle { memory, file });
        handle.map(Some).ok_or(FrontEndError::Nonsense(name))
    }

    /// Hands over the record of what a predecessor had in flight.
    pub fn restore_inflight(&mut self, handle: &InflightHandle) -> Result<(), FrontEndError> {
        let memory = handle.memory.as_bytes();
        self.tell(Request::SetInflightFd, "SET_INFLIGHT_FD", memory, &[handle.file.as_fd()])
    }

    /// Has a ring served from this place on.
    pub fn start_ring(
        &mut self,
        index: u16,
        layout: &QueueLayout,
        base: u16,
        kick: BorrowedFd<'_>,
        call: BorrowedFd<'_>,
    ) -> Result<(), FrontEndError> {
        let index = u32::from(index);
        let number = |number: u32| RingNumber { index, number };
        let size = number(layout.size.into());
        self.tell(Request::SetVringNum, "SET_VRING_NUM", size.as_bytes(), &[])?;
        let base = number(base.into());
        self.tell(Request::SetVringBase, "SET_VRING_BASE", base.as_bytes(), &[])?;
        let addresses = RingAddresses {
            index,
            flags: 0,
            descriptors: layout.descriptor_table,
            used: layout.used_ring,
            available: layout.available_ring,
            log: 0,
        };
        self.tell(Request::SetVringAddr, "SET_VRING_ADDR", addresses.as_bytes(), &[])?;
        let ring = u64::from(index);
        self.tell(Request::SetVringCall, "SET_VRING_CALL", ring.as_bytes(), &[call])?;
        self.tell(Request::SetVringKick, "SET_VRING_KICK", ring.as_bytes(), &[kick])?;
        if self.protocol_features == 0 {
            return Ok(());
        }
        self.tell(Request::SetVringEnable, "SET_VRING_ENABLE", number(1).as_bytes(), &[])
    }

    /// Has a ring no longer served; gives where it stands.
    pub fn stop_ring(&mut self, index: u16) -> Result<u32, FrontEndError> {
        let ring = RingNumber { index: index.into(), number: 0 };
        let request = (Request::GetVringBase, "GET_VRING_BASE");
        Ok(self.ask::<RingNumber>(request, ring.as_bytes())?.number)
    }

    /// Has the device be as at the beginning, where the back end can do that.
    pub fn reset_device(&mut self) -> Result<(), FrontEndError> {
        if self.protocol_features & protocol::RESET_DEVICE == 0 {
            return Ok(());
        }
        self.tell(Request::ResetDevice, "RESET_DEVICE", &[], &[])
    }

    fn ask<T: FromBytes + KnownLayout + Immutable>(
        &mut self,
        (request, name): (Request, &'static str),
        payload: &[u8],
    ) -> Result<T, FrontEndError> {
        self.send(request, name, payload, &[])?;
        let (answer, _) = self.receive(name)?;
        T::read_from_bytes(&answer).map_err(|_| FrontEndError::Nonsense(name))
    }

    /// Says something that has no answer of its own, and asks for one where that is possible.
    fn tell(
        &mut self,
        request: Request,
        name: &'static str,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<(), FrontEndError> {
        let acknowledged = self.protocol_features & protocol::REPLY_ACK != 0;
        self.send(request, name, payload, files)?;
        if !acknowledged {
            return Ok(());
        }
        let (answer, _) = self.receive(name)?;
        match u64::read_from_bytes(&answer) {
            Ok(0) => Ok(()),
            Ok(_) => Err(FrontEndError::Refused(name)),
            Err(_) => Err(FrontEndError::Nonsense(name)),
        }
    }

    fn send(
        &mut self,
        request: Request,
        name: &'static str,
        payload: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<(), FrontEndError> {
        let mut header = Header::request(request, payload.len());
        let has_answer = request.has_answer();
        if self.protocol_features & protocol::REPLY_ACK != 0 && !has_answer {
            header = header.with_answer();
        }
        wire::send(&self.socket, header, payload, files, SendFlags::empty())
            .map_err(|source| FrontEndError::Broken { request: name, source })
    }

    fn receive(&mut self, name: &'static str) -> Result<(Vec<u8>, Vec<OwnedFd>), FrontEndError> {
        let broken = |source| FrontEndError::Broken { request: name, source };
        let mut header = [0; size_of::<Header>()];
        let mut files = Vec::new();
        let received = wire::receive(&self.socket, &mut header, &mut files, RecvFlags::WAITALL)
            .map_err(|errno| broken(errno.into()))?;
        if received < header.len() {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        let header = Header::read_from_bytes(&header).expect("the sizes are the same");
        if header.size > LONGEST_PAYLOAD {
            return Err(FrontEndError::Nonsense(name));
        }
        let mut payload = vec![0; header.size as usize];
        self.socket.read_exact(&mut payload).map_err(broken)?;
        Ok((payload, files))
    }
}

/// The memory of a back end's record of what is in flight.
#[derive(Debug)]
pub struct InflightHandle {
    memory: InflightMemory,
    file: OwnedFd,
}
