//! What a network is made of, on its way to the thread or process that serves it.

use std::io;

use serde::{Deserialize, Serialize};

use super::error::NetError;
use super::memory::SettingsFile;
use super::tap::Tap;
use super::{NetBackend, NetOptions};
use crate::virtio::backend::{BackendContext, DeviceProfile};
use crate::virtio::control::{Change, LimitedTraffic};
use crate::virtio::parts::Parts;
use crate::virtio::queue::InflightRegion;

/// A tap, what was asked for, and the memory of what the driver sets.
#[derive(Debug, Serialize, Deserialize)]
pub struct NetParts {
    tap: Tap,
    options: NetOptions,
    settings: SettingsFile,
}

impl NetParts {
    /// Parts of a network at `tap`.
    pub fn new(tap: Tap, options: NetOptions) -> Result<Self, NetError> {
        options.check()?;
        let settings = SettingsFile::create().map_err(|source| NetError::System {
            name: tap.name().to_owned(),
            action: "make a memory for the settings of",
            source,
        })?;
        Ok(Self { tap, options, settings })
    }
}

impl Parts for NetParts {
    fn profile(&self) -> DeviceProfile {
        super::profile(&self.tap, &self.options)
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            tap: self.tap.try_clone()?,
            options: self.options.clone(),
            settings: self.settings.try_clone()?,
        })
    }

    fn remember(&mut self, change: &Change) {
        let options = &mut self.options;
        match change {
            Change::Size { .. }
            | Change::Window(_)
            | Change::Balloon { .. }
            | Change::Share(_)
            | Change::Unshare { .. } => {}
            Change::Link(link) => options.link = *link,
            Change::RateLimits { traffic, limits } => {
                if *traffic != LimitedTraffic::Transmit {
                    options.receive = *limits;
                }
                if *traffic != LimitedTraffic::Receive {
                    options.transmit = *limits;
                }
            }
        }
    }

    async fn run(self, inflight: Option<InflightRegion>, context: BackendContext) {
        let backend = match NetBackend::new(self.tap, self.options) {
            Ok(backend) => backend.with_settings(self.settings),
            // The transport sees the channel close.
            Err(error) => return log::error!("the network back end cannot start: {error}"),
        };
        NetBackend { inflight, ..backend }.run(context).await;
    }
}
