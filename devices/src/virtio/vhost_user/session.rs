//! A conversation with a front end.

use std::future::pending;
use std::io;
use std::pin::pin;

use executor::{Either, select};
use thiserror::Error;
use zerocopy::{Immutable, IntoBytes};

use super::back_end::BackEnd;
use super::connection::Connection;
use super::message::{InflightMemory, Malformed, Message, Request, protocol};
use super::regions::{MOST_REGIONS, Regions};
use super::rings::Ring;
use crate::memory::MemoryError;
use crate::virtio::backend::{BackendEvent, DeviceProfile};
use crate::virtio::helpers::Helper;
use crate::virtio::parts::{DeviceParts, Parts};
use crate::virtio::queue::{InflightError, InflightRegion};
use crate::virtio::written::Written;

/// Why a request cannot be carried out.
#[derive(Debug, Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("there is no ring {0}")]
    NoRing(usize),
    #[error("a ring has 1 to {most} places, not {size}")]
    Size { size: u32, most: u16 },
    #[error("the address {0:#x} is in no region of memory")]
    Address(u64),
    #[error("there are more than {MOST_REGIONS} regions of memory")]
    TooManyRegions,
    #[error("there is no such region of memory")]
    NoRegion,
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Inflight(#[from] InflightError),
    #[error("{0}")]
    BackEnd(String),
    #[error(transparent)]
    System(#[from] io::Error),
}

/// What a request is answered with, beside what the front end may ask for with any request.
pub(super) enum Answer {
    None,
    Payload(Vec<u8>),
    Inflight(InflightMemory),
}

impl Answer {
    pub(super) fn of(value: &(impl IntoBytes + Immutable)) -> Self {
        Self::Payload(value.as_bytes().to_vec())
    }
}

/// All that is known of a front end and its guest.
pub(super) struct Session {
    connection: Connection,
    pub(super) device: DeviceParts,
    pub(super) profile: DeviceProfile,
    pub(super) inflight: InflightRegion,
    /// For the back end.
    pub(super) helpers: Vec<Helper>,
    /// Virtio features that were agreed on.
    pub(super) features: u64,
    pub(super) protocol_features: u64,
    pub(super) regions: Regions,
    pub(super) rings: Vec<Ring>,
    pub(super) back_end: Option<BackEnd>,
    pub(super) written: Written,
    /// Whether the back end serves the rings that are wanted.
    pub(super) serving: bool,
}

impl Session {
    pub(super) fn new(
        connection: Connection,
        device: DeviceParts,
        inflight: InflightRegion,
        helpers: Vec<Helper>,
    ) -> Self {
        let profile = device.profile();
        let rings = profile.queue_sizes.iter().map(|size| Ring { size: *size, ..Ring::default() });
        Self {
            connection,
            device,
            rings: rings.collect(),
            profile,
            inflight,
            helpers,
            features: 0,
            protocol_features: 0,
            regions: Regions::default(),
            back_end: None,
            written: Written::default(),
            serving: false,
        }
    }

    /// Serves the front end until it goes away. An error is a sentence for the log.
    pub(super) async fn run(mut self) -> Result<(), String> {
        let outcome = self.converse().await;
        if let Some(back_end) = self.back_end.take() {
            back_end.end().await;
        }
        outcome
    }

    async fn converse(&mut self) -> Result<(), String> {
        loop {
            let next = {
                let event = next_event(self.back_end.as_mut());
                select(pin!(self.connection.readable()), pin!(event)).await
            };
            match next {
                Either::Left(ready) => {
                    let message = match ready {
                        Ok(()) => self.connection.receive().await,
                        Err(error) => Err(error),
                    };
                    match message.map_err(|error| format!("the front end: {error}"))? {
                        Some(message) => self.handle(message).await?,
                        None => return Ok(()),
                    }
                }
                Either::Right(BackendEvent::ConfigChanged { config }) => {
                    self.profile.config = config;
                }
                // The driver looks when it looks: the protocol's way to tell it is not spoken.
                Either::Right(BackendEvent::LookAtConfig) => {}
                Either::Right(BackendEvent::NeedsReset { queue, reason }) => {
                    log::warn!("queue {queue} is broken until the driver resets it: {reason}");
                }
            }
        }
    }

    async fn handle(&mut self, message: Message) -> Result<(), String> {
        let (number, wants_answer) = (message.header.request, message.header.wants_answer());
        let acknowledge = wants_answer && self.protocol_features & protocol::REPLY_ACK != 0;
        let answer = match Request::from_number(number) {
            Some(request) => {
                log::trace!("{request:?} {:x?}", message.payload);
                self.carry_out(request, message).await.map_err(|trouble| {
                    format!("the front end's request {request:?} cannot be carried out: {trouble}")
                })
            }
            None => Err(format!("the front end's request {number} is not known here")),
        };
        let sent = match answer {
            Ok(Answer::None) if acknowledge => {
                self.connection.answer(number, 0_u64.as_bytes(), None)
            }
            Ok(Answer::None) => Ok(()),
            Ok(Answer::Payload(payload)) => self.connection.answer(number, &payload, None),
            Ok(Answer::Inflight(memory)) => {
                self.connection.answer(number, memory.as_bytes(), Some(self.inflight.file()))
            }
            Err(reason) if acknowledge => {
                log::warn!("{reason}");
                self.connection.answer(number, 1_u64.as_bytes(), None)
            }
            Err(reason) => return Err(reason),
        };
        sent.map_err(|error| format!("answering the front end: {error}"))
    }
}

async fn next_event(back_end: Option<&mut BackEnd>) -> BackendEvent {
    if let Some(back_end) = back_end
        && let Ok(event) = back_end.events.recv().await
    {
        return event;
    }
    pending().await
}
