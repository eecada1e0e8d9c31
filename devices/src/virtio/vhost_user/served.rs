//! Which rings are served, and how that changes.

use std::io;

use super::back_end::BackEnd;
use super::message::FEATURE_PROTOCOL;
use super::rings::{Ring, base};
use super::session::{Session, Trouble};
use crate::virtio::backend::BackendRequest;
use crate::virtio::parts::Parts;
use crate::virtio::queue::ring_layout;

impl Session {
    /// Changes what is known of a ring. If it is served, or will be, the back end begins anew where it
    /// stands.
    pub(super) async fn change(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut Ring),
    ) -> Result<(), Trouble> {
        let ring = self.rings.get(index).ok_or(Trouble::NoRing(index))?;
        let before = ring.is_wanted();
        if before {
            self.quiesce().await?;
        }
        let ring = &mut self.rings[index];
        change(ring);
        let after = ring.is_wanted();
        if after {
            self.quiesce().await?;
        }
        if before || after { self.activate().await } else { Ok(()) }
    }

    /// Has the back end finish what is in flight and let go of the rings.
    pub(super) async fn quiesce(&mut self) -> Result<(), Trouble> {
        if !std::mem::take(&mut self.serving) {
            return Ok(());
        }
        let Some(back_end) = &self.back_end else { return Ok(()) };
        let states = back_end.call(|reply| BackendRequest::Detach { reply }).await;
        for state in states.map_err(Trouble::BackEnd)? {
            if let Some(ring) = self.rings.get_mut(usize::from(state.index)) {
                ring.base = Some(base(state.position));
            }
        }
        Ok(())
    }

    pub(super) async fn end_back_end(&mut self) -> Result<(), Trouble> {
        self.quiesce().await?;
        if let Some(back_end) = self.back_end.take() {
            // Until there is another.
            let length = self.profile.config.len() as u32;
            let config = back_end.read_config(0, length).await;
            back_end.end().await;
            self.profile.config = config.map_err(Trouble::BackEnd)?;
        }
        Ok(())
    }

    /// Has the rings served that are wanted.
    pub(super) async fn activate(&mut self) -> Result<(), Trouble> {
        let layout = ring_layout(self.features);
        let setups = self.rings.iter().zip(0..).map(|(ring, index)| ring.setup(index, layout));
        let queues = setups.filter_map(Result::transpose).collect::<io::Result<Vec<_>>>()?;
        if queues.is_empty() {
            return Ok(());
        }
        if self.back_end.is_none() {
            let (device, inflight) = (self.device.try_clone()?, self.inflight.clone());
            let (memory, helpers) = (self.regions.map()?, self.helpers.clone());
            let back_end = BackEnd::start(device, memory, inflight, helpers);
            for (offset, data) in self.written.iter() {
                back_end.write_config(offset, data).await.map_err(Trouble::BackEnd)?;
            }
            self.back_end = Some(back_end);
        }
        let Some(back_end) = &self.back_end else { return Ok(()) };
        let features = self.features & !FEATURE_PROTOCOL;
        let activate = |reply| BackendRequest::Activate { features, queues, reply };
        match back_end.call(activate).await.map_err(Trouble::BackEnd)? {
            Ok(()) => self.serving = true,
            // The driver's mistake, which the front end can do nothing about.
            Err(reason) => log::warn!("the rings cannot be served: {reason}"),
        }
        Ok(())
    }
}
