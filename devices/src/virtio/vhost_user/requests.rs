//! What a front end may ask for.

use std::io;

use zerocopy::{FromBytes, IntoBytes};

use super::message::{
    ConfigPart, FEATURE_PROTOCOL, InflightMemory, LONGEST_PAYLOAD, Malformed, Message, RegionCount,
    RegionMessage, Request, RingAddresses, RingNumber, SingleRegion, protocol, ring_of,
};
use super::regions::{MOST_REGIONS, Regions};
use super::rings::{Place, Ring, Taken};
use super::session::{Answer, Session, Trouble};
use crate::virtio::backend::{BackendRequest, ConfigWrites};
use crate::virtio::parts::Parts;
use crate::virtio::queue::{InflightRegion, ring_layout};

/// Virtio 1.3 section 6: the device is none of those from before 1.0.
const FEATURE_VERSION_1: u64 = 1 << 32;

const PROTOCOL_FEATURES: u64 = protocol::MQ
    | protocol::REPLY_ACK
    | protocol::CONFIG
    | protocol::INFLIGHT_SHMFD
    | protocol::RESET_DEVICE
    | protocol::CONFIGURE_MEM_SLOTS;

impl Session {
    pub(super) async fn carry_out(
        &mut self,
        request: Request,
        mut message: Message,
    ) -> Result<Answer, Trouble> {
        match request {
            Request::GetFeatures => return Ok(Answer::of(&self.offered())),
            Request::GetProtocolFeatures => return Ok(Answer::of(&PROTOCOL_FEATURES)),
            Request::GetQueueNum => return Ok(Answer::of(&(self.rings.len() as u64))),
            Request::GetMaxMemSlots => return Ok(Answer::of(&(MOST_REGIONS as u64))),
            Request::SetFeatures => self.set_features(message.read()?).await?,
            Request::SetProtocolFeatures => {
                self.protocol_features = message.read::<u64>()? & PROTOCOL_FEATURES;
            }
            Request::SetOwner => {}
            Request::ResetOwner | Request::ResetDevice => self.reset().await?,
            Request::SetMemTable => self.set_memory(message).await?,
            Request::AddMemReg => {
                let SingleRegion { region, .. } = message.read()?;
                let file = message.descriptor()?;
                self.change_memory(|regions| {
                    if regions.add(region, file) { Ok(()) } else { Err(Trouble::TooManyRegions) }
                })
                .await?;
            }
            Request::RemMemReg => {
                let SingleRegion { region, .. } = message.read()?;
                self.change_memory(|regions| {
                    if regions.remove(region) { Ok(()) } else { Err(Trouble::NoRegion) }
                })
                .await?;
            }
            Request::SetVringNum
            | Request::SetVringAddr
            | Request::SetVringBase
            | Request::SetVringEnable => self.set_ring(request, &message).await?,
            Request::GetVringBase => {
                let RingNumber { index, .. } = message.read()?;
                self.change(index as usize, |ring| ring.kick = None).await?;
                let layout = ring_layout(self.features);
                let number = self.rings[index as usize].stop(layout);
                return Ok(Answer::of(&RingNumber { index, number }));
            }
            Request::SetVringKick | Request::SetVringCall | Request::SetVringErr => {
                self.set_descriptor(request, message).await?;
            }
            Request::GetConfig => return self.read_config(message.read()?).await,
            Request::SetConfig => self.write_config(&message).await?,
            Request::GetInflightFd => {
                let asked: InflightMemory = message.read()?;
                self.inflight.clear();
                let size =
                    rustix::fs::fstat(self.inflight.file()).map_err(io::Error::from)?.st_size;
                return Ok(Answer::Inflight(InflightMemory {
                    size: size as u64,
                    offset: 0,
                    ..asked
                }));
            }
            Request::SetInflightFd => {
                let file = message.descriptor()?;
                let (queues, size) = self.profile.inflight_size();
                let inflight = InflightRegion::attach(file, queues, size)?;
                self.end_back_end().await?;
                self.inflight = inflight;
                self.activate().await?;
            }
        }
        Ok(Answer::None)
    }

    fn offered(&self) -> u64 {
        self.profile.features | FEATURE_PROTOCOL | FEATURE_VERSION_1
    }

    async fn set_features(&mut self, features: u64) -> Result<(), Trouble> {
        self.quiesce().await?;
        self.features = features & self.offered();
        if features & FEATURE_PROTOCOL == 0 {
            // Then there is no word to enable rings.
            for ring in &mut self.rings {
                ring.enabled = true;
            }
        }
        self.activate().await
    }

    async fn reset(&mut self) -> Result<(), Trouble> {
        self.quiesce().await?;
        match &self.back_end {
            Some(back_end) => {
                let reset = |reply| BackendRequest::Reset { reply };
                back_end.call(reset).await.map_err(Trouble::BackEnd)?;
            }
            None => {
                // The next one finds rings at their beginning, and so a driver that has said nothing.
                self.inflight.clear();
                self.profile.config = self.device.profile().config;
            }
        }
        self.written.clear();
        let sizes = self.profile.queue_sizes.iter();
        self.rings = sizes.map(|size| Ring { size: *size, ..Ring::default() }).collect();
        Ok(())
    }

    async fn set_memory(&mut self, message: Message) -> Result<(), Trouble> {
        let (RegionCount { count, .. }, mut rest) =
            RegionCount::read_from_prefix(&message.payload).map_err(|_| Malformed::Short)?;
        if count as usize != message.descriptors.len() {
            return Err(Malformed::Descriptors.into());
        }
        let mut table = Regions::default();
        for file in message.descriptors {
            let (region, behind) =
                RegionMessage::read_from_prefix(rest).map_err(|_| Malformed::Short)?;
            rest = behind;
            if !table.add(region, file) {
                return Err(Trouble::TooManyRegions);
            }
        }
        self.change_memory(|regions| {
            *regions = table;
            Ok(())
        })
        .await
    }

    /// A back end has its memory for life, so another memory needs another back end.
    async fn change_memory(
        &mut self,
        change: impl FnOnce(&mut Regions) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        self.end_back_end().await?;
        change(&mut self.regions)?;
        self.activate().await
    }

    async fn set_ring(&mut self, request: Request, message: &Message) -> Result<(), Trouble> {
        if request == Request::SetVringAddr {
            let addresses: RingAddresses = message.read()?;
            let find = |user| self.regions.guest_address(user).ok_or(Trouble::Address(user));
            let place = Place {
                descriptors: find(addresses.descriptors)?,
                available: find(addresses.available)?,
                used: find(addresses.used)?,
            };
            return self.change(addresses.index as usize, |ring| ring.place = Some(place)).await;
        }
        let RingNumber { index, number } = message.read()?;
        let index = index as usize;
        match request {
            Request::SetVringNum => {
                let most = *self.profile.queue_sizes.get(index).ok_or(Trouble::NoRing(index))?;
                let size = u16::try_from(number).ok().filter(|size| (1..=most).contains(size));
                let size = size.ok_or(Trouble::Size { size: number, most })?;
                self.change(index, |ring| ring.size = size).await
            }
            Request::SetVringBase => {
                let (layout, inflight) = (ring_layout(self.features), self.inflight.clone());
                self.change(index, |ring| {
                    if ring.begin_at(number, layout) == Taken::Void
                        && let Some(record) = inflight.record(index as u16)
                    {
                        record.retire();
                    }
                })
                .await
            }
            _ => self.change(index, |ring| ring.enabled = number != 0).await,
        }
    }

    async fn set_descriptor(
        &mut self,
        request: Request,
        mut message: Message,
    ) -> Result<(), Trouble> {
        let (index, comes) = ring_of(message.read()?);
        let descriptor = comes.then(|| message.descriptor()).transpose()?;
        match request {
            Request::SetVringKick => self.change(index, |ring| ring.kick = descriptor).await,
            Request::SetVringCall => self.change(index, |ring| ring.call = descriptor).await,
            // What is wrong with a ring is told in the log.
            _ => Ok(()),
        }
    }

    async fn read_config(&mut self, part: ConfigPart) -> Result<Answer, Trouble> {
        let size = part.size.min(LONGEST_PAYLOAD - size_of::<ConfigPart>() as u32);
        let part = ConfigPart { size, ..part };
        let mut bytes = match &self.back_end {
            Some(back_end) => {
                back_end.read_config(part.offset, size).await.map_err(Trouble::BackEnd)?
            }
            None => {
                let config = &self.profile.config;
                let start = (part.offset as usize).min(config.len());
                config[start..].iter().take(size as usize).copied().collect()
            }
        };
        // Front ends know fields that this device has not.
        bytes.resize(size as usize, 0);
        let mut payload = part.as_bytes().to_vec();
        payload.extend_from_slice(&bytes);
        Ok(Answer::Payload(payload))
    }

    async fn write_config(&mut self, message: &Message) -> Result<(), Trouble> {
        let (part, data) = ConfigPart::read_from_prefix(&message.payload)
            .map_err(|_| Trouble::Malformed(Malformed::Short))?;
        if self.profile.config_writes == ConfigWrites::Ignored {
            return Ok(());
        }
        let data = data.get(..part.size as usize).ok_or(Malformed::Short)?;
        // As a transport that has registers would write it.
        for (index, piece) in data.chunks(8).enumerate() {
            let (offset, data) = (part.offset.saturating_add(8 * index as u32), piece.to_vec());
            self.written.remember(offset, &data);
            if let Some(back_end) = &self.back_end {
                back_end.write_config(offset, data).await.map_err(Trouble::BackEnd)?;
            }
        }
        Ok(())
    }
}
