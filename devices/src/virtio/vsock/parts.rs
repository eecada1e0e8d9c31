//! What a vsock device is made of, on its way to the thread or process that serves it.

use std::io;

use ipc::{Fd, Reply, Sender};
use serde::{Deserialize, Serialize};

use super::connection::SocketKind;
use super::{VsockBackend, VsockError, VsockOptions};
use crate::virtio::backend::{BackendContext, DeviceProfile};
use crate::virtio::parts::Parts;
use crate::virtio::queue::InflightRegion;

/// Asks for a connection to a program of the host that listens. The device has no way of its own to
/// make sockets.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConnectRequest {
    /// The port that the guest wants.
    pub port: u32,
    /// The kind of socket.
    pub kind: SocketKind,
    /// A connected socket, or none if nobody listens.
    pub reply: Reply<Result<Fd, Refused>>,
}

/// Nobody listens on the port, or not for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused;

/// Listening sockets, what was asked for, and who connects.
#[derive(Debug, Serialize, Deserialize)]
pub struct VsockParts {
    options: VsockOptions,
    stream: Fd,
    seqpacket: Fd,
    connects: Sender<ConnectRequest>,
}

impl VsockParts {
    /// Parts of a device. The sockets listen and do not block; programs of the host connect to them.
    pub fn new(
        options: VsockOptions,
        stream: impl Into<Fd>,
        seqpacket: impl Into<Fd>,
        connects: Sender<ConnectRequest>,
    ) -> Result<Self, VsockError> {
        options.check()?;
        Ok(Self { options, stream: stream.into(), seqpacket: seqpacket.into(), connects })
    }
}

impl Parts for VsockParts {
    fn profile(&self) -> DeviceProfile {
        super::profile(&self.options)
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            options: self.options,
            stream: self.stream.try_clone()?,
            seqpacket: self.seqpacket.try_clone()?,
            connects: self.connects.clone(),
        })
    }

    async fn run(self, inflight: Option<InflightRegion>, context: BackendContext) {
        let Self { options, stream, seqpacket, connects } = self;
        let backend = VsockBackend::new(options, stream, seqpacket, connects);
        let backend = match backend {
            Ok(backend) => backend,
            Err(error) => {
                // The transport sees the channel close.
                log::error!("the vsock back end cannot use its sockets: {error}");
                return;
            }
        };
        match inflight {
            Some(region) => backend.with_inflight(region).run(context).await,
            None => backend.run(context).await,
        }
    }
}
