//! The conversation with the other program, for as long as the device lives.
//!
//! ```text
//!            connected, asked, rings handed over
//!     Down ───────────────────────────────────────► Up
//!      ▲  every RETRY, without end                  │
//!      └──────── the connection ends ◄──────────────┘
//! ```
//!
//! The driver notices nothing of it but a pause: what it starts while nobody is there waits.

use std::os::fd::OwnedFd;
use std::time::Duration;

use executor::{Either, Fd, Instant, PollFlags, select};
use ipc::{Receiver, Sender};

use super::super::front_end::{FrontEnd, FrontEndError, InflightHandle, SharedRegion};
use super::failure::Failure;
use super::profile;
use super::rings::Ring;
use super::{PATIENCE, RemoteKind, RemoteOptions, connect};
use crate::log_limit::LogLimit;
use crate::memory::GuestMemory;
use crate::virtio::backend::{
    BackendContext, BackendEvent, BackendRequest, DeviceProfile, QueueSetup, QueueState, RingLayout,
};
use crate::virtio::control::{ControlRequest, Statistics};

/// How often to look for a back end that is gone: a start of one takes as long.
const RETRY: Duration = Duration::from_millis(50);

/// The other program.
enum Link {
    /// It is there; the second is the same connection, to see it end.
    Up(FrontEnd, Fd),
    /// It is gone; when to look for it again.
    Down(Instant),
}

/// What the driver has set up.
enum Served {
    Nothing,
    Rings { features: u64, rings: Vec<Ring>, motion: Motion },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Motion {
    Going,
    Paused,
}

pub(super) struct Session {
    options: RemoteOptions,
    profile: DeviceProfile,
    memory: GuestMemory,
    requests: Receiver<BackendRequest>,
    controls: Receiver<ControlRequest>,
    events: Sender<BackendEvent>,
    link: Link,
    served: Served,
    /// The back end's own record of what is in flight.
    inflight: Option<InflightHandle>,
    log: LogLimit,
}

impl Session {
    pub(super) fn new(
        options: RemoteOptions,
        profile: DeviceProfile,
        context: BackendContext,
        front_end: Option<FrontEnd>,
    ) -> Self {
        let BackendContext { memory, requests, controls, events, .. } = context;
        let link = front_end
            .and_then(|front_end| watched(front_end).ok())
            .unwrap_or(Link::Down(executor::now()));
        Self {
            options,
            profile,
            memory,
            requests,
            controls,
            events,
            link,
            served: Served::Nothing,
            inflight: None,
            log: LogLimit::new(),
        }
    }

    /// Ends with the transport.
    pub(super) async fn run(mut self) {
        loop {
            let others = select(turned(&self.link), next(&mut self.controls));
            let turn = select(self.requests.recv(), others).await;
            match turn {
                Either::Left(Ok(request)) => self.carry_out(request),
                Either::Left(Err(_)) => break,
                Either::Right(Either::Left(())) => match self.link {
                    Link::Up(..) => self.lose("the connection has ended"),
                    Link::Down(_) => self.look().await,
                },
                Either::Right(Either::Right(request)) => refuse(request),
            }
        }
        // What was taken is carried out.
        self.halt();
    }

    fn carry_out(&mut self, request: BackendRequest) {
        match request {
            BackendRequest::Activate { features, queues, reply } => {
                reply.send(self.activate(features, queues));
            }
            BackendRequest::Reset { reply } => {
                self.halt();
                self.reset();
                self.forget();
                reply.send(());
            }
            BackendRequest::Pause { reply } => {
                self.halt();
                if let Served::Rings { motion, .. } = &mut self.served {
                    *motion = Motion::Paused;
                }
                reply.send(self.states());
            }
            BackendRequest::Resume { reply } => {
                if let Served::Rings { motion, .. } = &mut self.served {
                    *motion = Motion::Going;
                    if let Err(failure) = self.hand_over() {
                        self.lose(&failure.to_string());
                    }
                }
                reply.send(());
            }
            BackendRequest::Detach { reply } => {
                self.halt();
                reply.send(self.states());
                self.forget();
            }
            BackendRequest::ReadConfig { offset, length, reply } => {
                let bytes = self.profile.config.iter().skip(offset as usize);
                reply.send(bytes.take(length as usize).copied().collect());
            }
            BackendRequest::WriteConfig { reply, .. } => reply.send(()),
        }
    }

    fn activate(&mut self, features: u64, queues: Vec<QueueSetup>) -> Result<(), String> {
        if !matches!(self.served, Served::Nothing) {
            return Err("the device is active already".into());
        }
        if queues.iter().any(|queue| queue.layout == RingLayout::Packed) {
            return Err("its rings are packed, which was not offered".into());
        }
        let rings = queues.into_iter().map(Ring::new).collect();
        self.served = Served::Rings { features, rings, motion: Motion::Going };
        match self.hand_over() {
            Ok(()) => {
                if profile::has_window(self.options.kind, features, &self.profile.config) {
                    // Linux looks at it when it changes, and not when it starts. If the channel is full, it never
                    // knows.
                    let _ = self.events.try_send(BackendEvent::LookAtConfig);
                }
                Ok(())
            }
            // It will be served as soon as somebody is there again.
            Err(Failure::FrontEnd(error @ FrontEndError::Broken { .. })) => {
                self.lose(&error.to_string());
                Ok(())
            }
            Err(failure) => {
                self.forget();
                Err(failure.to_string())
            }
        }
    }

    /// Has the rings served, if there are any and somebody is there.
    fn hand_over(&mut self) -> Result<(), Failure> {
        let (Link::Up(front_end, _), Served::Rings { features, rings, motion: Motion::Going }) =
            (&mut self.link, &mut self.served)
        else {
            return Ok(());
        };
        // Some refuse what they did not offer: what of it is ours is none of their business.
        let offered = front_end.features()?;
        front_end.set_features(*features & offered)?;
        let regions: Vec<_> = self
            .memory
            .regions()
            .map(|region| SharedRegion {
                guest: region.guest_base.0,
                size: region.length,
                file: region.file,
                offset: region.file_offset,
            })
            .collect();
        front_end.set_memory(&regions)?;
        match &self.inflight {
            Some(record) => front_end.restore_inflight(record)?,
            None => {
                let (queues, size) = self.profile.inflight_size();
                self.inflight = front_end.inflight(queues, size)?;
            }
        }
        for ring in rings {
            ring.start(front_end, &self.memory)?;
        }
        Ok(())
    }

    /// Has what is in flight carried out and no more taken. Where nobody is there nothing is.
    fn halt(&mut self) {
        let (Link::Up(front_end, _), Served::Rings { rings, motion: Motion::Going, .. }) =
            (&mut self.link, &mut self.served)
        else {
            return;
        };
        let mut stopped = Ok(());
        for ring in rings {
            stopped = ring.stop(front_end);
            if stopped.is_err() {
                break;
            }
        }
        if let Err(error) = stopped {
            self.lose(&error.to_string());
        }
    }

    /// Has the back end forget what the driver told it beside its rings, if it knows how.
    fn reset(&mut self) {
        if let Link::Up(front_end, _) = &mut self.link
            && let Err(error) = front_end.reset_device()
        {
            self.lose(&error.to_string());
        }
    }

    fn forget(&mut self) {
        self.served = Served::Nothing;
        self.inflight = None;
    }

    fn states(&self) -> Vec<QueueState> {
        let Served::Rings { rings, .. } = &self.served else { return Vec::new() };
        rings.iter().map(|ring| ring.state(&self.memory)).collect()
    }

    /// The connection is of no use any more.
    fn lose(&mut self, why: &str) {
        if let Link::Up(front_end, _) = &self.link {
            // There may be other handles of it, which must not keep the other side waiting.
            let _ = front_end.socket().shutdown(std::net::Shutdown::Both);
            self.complain(&format!("{why}; the driver's requests wait for a successor"));
        }
        self.link = Link::Down(executor::now() + RETRY);
    }

    /// Looks for a successor.
    async fn look(&mut self) {
        let event = match self.find() {
            Ok(Some(config)) if config != self.profile.config => {
                self.profile.config.clone_from(&config);
                Some(BackendEvent::ConfigChanged { config })
            }
            Ok(_) => None,
            Err(failure) => return self.complain(&failure.to_string()),
        };
        if !matches!(self.link, Link::Up(..)) {
            return;
        }
        if let Some(queue) = self.lost_queue() {
            let reason = "its back end died and keeps no record of what was in flight".into();
            // A closed channel ends the loop next.
            let _ = self.events.send(BackendEvent::NeedsReset { queue, reason }).await;
            self.forget();
        }
        if let Err(failure) = self.hand_over() {
            return self.lose(&failure.to_string());
        }
        let (kind, socket) = (self.options.kind.name(), self.options.socket.display());
        log::info!("vhost-user {kind} at {socket}: there is a back end again");
        if let Some(event) = event {
            let _ = self.events.send(event).await;
        }
    }

    /// Connects, if somebody listens, and sees whether it is the same device; gives its configuration space
    /// where that may be another than before.
    fn find(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        self.link = Link::Down(executor::now() + RETRY);
        let Ok(socket) = connect(&self.options.socket) else { return Ok(None) };
        let mut front_end = FrontEnd::with_patience(socket, PATIENCE)?;
        let offer = profile::ask(&mut front_end, self.options.kind)?;
        if let Served::Rings { features, .. } = &self.served {
            let missing = features & !(offer.features | profile::ours(self.options.kind));
            if missing != 0 {
                return Err(Failure::Features(missing));
            }
        }
        let config = match self.options.kind {
            RemoteKind::Blk => Some(profile::of(&self.options, offer)?.config),
            RemoteKind::Console => {
                let found = profile::of(&self.options, offer)?;
                if found.queue_sizes.len() < self.profile.queue_sizes.len() {
                    return Err(Failure::Queues(found.queue_sizes.len()));
                }
                Some(profile::with_window_of(&self.profile.config, &found.config))
            }
            _ => None,
        };
        self.link = watched(front_end)?;
        Ok(config)
    }

    /// A queue of which nobody knows any more what is in flight. Networks and the like give buffers back in
    /// the order in which they got them: these go on behind the last.
    fn lost_queue(&self) -> Option<u16> {
        let Served::Rings { rings, .. } = &self.served else { return None };
        if self.inflight.is_some() || !matches!(self.options.kind, RemoteKind::Blk | RemoteKind::Fs)
        {
            return None;
        }
        let lost = rings.iter().find(|ring| ring.is_lost(&self.memory));
        lost.map(|ring| ring.setup.index)
    }

    fn complain(&self, why: &str) {
        let (kind, socket) = (self.options.kind.name(), self.options.socket.display());
        self.log.warn(format_args!("vhost-user {kind} at {socket}: {why}"));
    }
}

/// A connection, and a handle to see it end.
fn watched(front_end: FrontEnd) -> std::io::Result<Link> {
    let watch = Fd::unregistered(OwnedFd::from(front_end.socket().try_clone()?))?;
    Ok(Link::Up(front_end, watch))
}

/// Ready when the connection has ended, or when it is time to look for another.
async fn turned(link: &Link) {
    match link {
        Link::Up(_, watch) => {
            // Nothing comes that was not asked for: whatever there is to read is the end.
            let _ = watch.poll(PollFlags::IN | PollFlags::RDHUP).await;
        }
        Link::Down(until) => executor::sleep_until(*until).await,
    }
}

/// The next request of others than the transport, of whom there may be none.
async fn next(controls: &mut Receiver<ControlRequest>) -> ControlRequest {
    match controls.recv().await {
        Ok(request) => request,
        Err(_) => std::future::pending().await,
    }
}

fn refuse(request: ControlRequest) {
    match request {
        ControlRequest::Change { reply, .. } => {
            reply.send(Err("another program serves this device: ask that one".into()));
        }
        ControlRequest::Statistics { reply } => reply.send(Statistics::None),
    }
}
