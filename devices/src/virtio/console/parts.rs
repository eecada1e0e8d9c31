//! What a console is made of, on its way to the thread or process that serves it.

use std::io;

use serde::{Deserialize, Serialize};

use super::failure::ConsoleError;
use super::port::{PortEnd, PortRole};
use super::protocol::WindowSize;
use super::state::ConsoleState;
use super::{ConsoleBackend, MAX_PORTS};
use crate::virtio::backend::{BackendContext, DeviceProfile};
use crate::virtio::parts::Parts;
use crate::virtio::queue::InflightRegion;
use crate::virtio::state_file::StateFile;

/// The ports with their ends, and the memory of what the driver knows.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConsoleParts {
    pub(super) ports: Vec<(PortRole, PortEnd)>,
    pub(super) state: StateFile<ConsoleState>,
}

impl ConsoleParts {
    /// Parts of a console with these ports and a window of this size.
    pub fn new(ports: Vec<(PortRole, PortEnd)>, window: WindowSize) -> Result<Self, ConsoleError> {
        if !(1..=MAX_PORTS).contains(&ports.len()) {
            return Err(ConsoleError::Ports { count: ports.len() });
        }
        ports.iter().try_for_each(|(role, _)| role.check())?;
        let state = StateFile::create()
            .and_then(|file| file.store(&ConsoleState::new(window)).map(|()| file))
            .map_err(|source| ConsoleError::State { source })?;
        Ok(Self { ports, state })
    }
}

impl Parts for ConsoleParts {
    fn profile(&self) -> DeviceProfile {
        let window = self.state.load().map_or(WindowSize::default(), |state| state.window);
        super::profile(&self.ports, window)
    }

    fn try_clone(&self) -> io::Result<Self> {
        let ports = self.ports.iter();
        let clone = |(role, end): &(PortRole, PortEnd)| Ok((role.clone(), end.try_clone()?));
        Ok(Self {
            ports: ports.map(clone).collect::<io::Result<_>>()?,
            state: self.state.try_clone()?,
        })
    }

    async fn run(self, inflight: Option<InflightRegion>, context: BackendContext) {
        ConsoleBackend { parts: self, inflight }.run(context).await;
    }
}
