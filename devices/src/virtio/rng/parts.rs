//! What an entropy source is made of, on its way to the thread or process that serves it.

use std::io;

use serde::{Deserialize, Serialize};

use super::RngBackend;
use crate::rate_limit::RateLimits;
use crate::virtio::backend::{BackendContext, DeviceProfile};
use crate::virtio::control::{Change, LimitedTraffic};
use crate::virtio::parts::Parts;
use crate::virtio::queue::InflightRegion;

/// Limits: all the rest comes from the kernel.
#[derive(Debug, Serialize, Deserialize)]
pub struct RngParts {
    limits: RateLimits,
}

impl RngParts {
    /// Parts of a source that keeps to these limits.
    pub fn new(limits: RateLimits) -> Self {
        Self { limits }
    }
}

impl Parts for RngParts {
    fn profile(&self) -> DeviceProfile {
        RngBackend::profile()
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { limits: self.limits })
    }

    fn remember(&mut self, change: &Change) {
        if let Change::RateLimits { traffic: LimitedTraffic::Both, limits } = change {
            self.limits = *limits;
        }
    }

    async fn run(self, inflight: Option<InflightRegion>, context: BackendContext) {
        let backend = RngBackend::new(self.limits);
        let backend = match inflight {
            Some(region) => backend.with_inflight(region),
            None => backend,
        };
        backend.run(context).await;
    }
}
