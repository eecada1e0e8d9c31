//! A machine without a machine: a warden, an executor, and probes.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;

use executor::{Config, Executor};
use ipc::{CallError, Deadline, Receiver, RecvError, Sender};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use vmm::warden::{
    Actor, ActorId, ActorKind, ActorLink, Attempt, AttemptOutcome, Death, Enforcement,
    PolicySource, ProbeRequest, ProbeStart, Start, Users, Warden, WardenEvent,
};

/// Nothing here takes long; what does not come by then does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn deadline() -> Deadline {
    Deadline::after(PATIENCE)
}

pub(crate) struct World {
    pub(crate) executor: Executor,
    events: Receiver<WardenEvent>,
    /// Events that nobody has asked for yet.
    early: VecDeque<WardenEvent>,
    next: u64,
    neighbours: bool,
    // Last: its end is waited for.
    pub(crate) warden: Warden,
}

pub(crate) struct Probe {
    pub(crate) id: ActorId,
    pub(crate) pid: i32,
    pub(crate) requests: Sender<ProbeRequest>,
    pub(crate) link: ActorLink,
    /// Of the others in its process.
    pub(crate) neighbours: Vec<ActorLink>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(&PolicySource::default())
    }

    /// Where calls that the policy forbids are carried out, so that only the other walls hold.
    pub(crate) fn without_seccomp() -> Self {
        Self::with(&PolicySource { folder: None, enforcement: Enforcement::LogOnly })
    }

    pub(crate) fn with(policies: &PolicySource) -> Self {
        let (warden, events) = Warden::fork(policies, Users::One).expect("a warden");
        let mut executor = Executor::new(&Config::default()).expect("an executor");
        let driving = warden.link().drive();
        executor.block_on(async { executor::spawn(driving).detach() });
        Self { executor, events, early: VecDeque::new(), next: 0, neighbours: false, warden }
    }

    /// A process that waits for its first message, and its number on the host.
    pub(crate) fn spawn(&mut self, kind: ActorKind) -> (ActorId, i32, ActorLink) {
        self.spawn_as(Actor::plain(kind))
    }

    pub(crate) fn spawn_as(&mut self, actor: Actor) -> (ActorId, i32, ActorLink) {
        let id = ActorId(self.next);
        self.next += 1;
        let spawner = self.warden.spawner().clone();
        let link = self
            .executor
            .block_on(async {
                let link = spawner.spawn(id, actor).await?;
                executor::spawn(link.link.drive()).detach();
                Ok::<_, vmm::warden::WardenError>(link)
            })
            .expect("asked for a process");
        (id, self.pid_of(id), link)
    }

    /// From now on probes share their process, and come neither first nor last in it.
    pub(crate) fn with_neighbours(mut self) -> Self {
        self.neighbours = true;
        self
    }

    /// Processes in which a probe has neighbours: one that is its like, and one that may do more.
    fn spawn_with_neighbours(&mut self) -> (ActorId, i32, ActorLink, Vec<ActorLink>) {
        let id = ActorId(self.next);
        self.next += 1;
        let kinds = [ActorKind::Probe, ActorKind::Probe, ActorKind::Fs];
        let actors = kinds.map(Actor::plain);
        let spawner = self.warden.spawner().clone();
        let mut links = self.executor.block_on(async {
            let links = spawner.spawn_together(id, actors).expect("asked for a process");
            for actor in &links {
                executor::spawn(actor.link.drive()).detach();
            }
            links
        });
        let pid = self.pid_of(id);
        (id, pid, links.remove(1), links)
    }

    fn pid_of(&mut self, id: ActorId) -> i32 {
        match self.event_of(id) {
            WardenEvent::Started { pid, .. } => pid,
            other => panic!("no process: {other:?}"),
        }
    }

    pub(crate) fn probe(&mut self) -> Probe {
        let (id, pid, link, neighbours) = if self.neighbours {
            self.spawn_with_neighbours()
        } else {
            let (id, pid, link) = self.spawn(ActorKind::Probe);
            (id, pid, link, Vec::new())
        };
        let (requests, receiver) = ipc::channel(4);
        let start = ProbeStart { requests: receiver };
        let started = self
            .executor
            .block_on(link.sender.call(|reply| Start::Probe(start, reply), deadline()));
        assert_eq!(started, Ok(Ok(())));
        Probe { id, pid, requests, link, neighbours }
    }

    /// The next event about an actor.
    pub(crate) fn event_of(&mut self, id: ActorId) -> WardenEvent {
        let is_about = |event: &WardenEvent| match event {
            WardenEvent::Started { id: of, .. }
            | WardenEvent::Failed { id: of, .. }
            | WardenEvent::Died { id: of, .. } => *of == id,
            WardenEvent::Unusable { reason } => panic!("no sandbox: {reason}"),
        };
        if let Some(index) = self.early.iter().position(is_about) {
            return self.early.remove(index).expect("it is there");
        }
        loop {
            let event = self.next_event().expect("the warden lives");
            if is_about(&event) {
                return event;
            }
            self.early.push_back(event);
        }
    }

    pub(crate) fn next_event(&mut self) -> Result<WardenEvent, RecvError> {
        let events = &mut self.events;
        let next = executor::timeout(PATIENCE, events.recv());
        self.executor.block_on(next).expect("an event comes, or the end")
    }

    pub(crate) fn death_of(&mut self, probe: &Probe) -> Death {
        let death = self.death(probe.id);
        assert_eq!(death.pid, probe.pid);
        death
    }

    pub(crate) fn death(&mut self, id: ActorId) -> Death {
        match self.event_of(id) {
            WardenEvent::Died { death, .. } => death,
            other => panic!("not dead: {other:?}"),
        }
    }

    pub(crate) fn ask<R: ipc::Message>(
        &mut self,
        probe: &Probe,
        make: impl FnOnce(ipc::Reply<R>) -> ProbeRequest,
    ) -> Result<R, CallError> {
        self.executor.block_on(probe.requests.call(make, deadline()))
    }

    /// What comes of an attempt of a fresh probe.
    pub(crate) fn attempt(&mut self, attempt: Attempt) -> Result<AttemptOutcome, Death> {
        let probe = self.probe();
        let make = |reply| ProbeRequest::Try(attempt, reply);
        match self.ask(&probe, make) {
            Ok(outcome) => Ok(outcome),
            Err(CallError::PeerDied | CallError::Refused) => Err(self.death_of(&probe)),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn is_alive(&mut self, probe: &Probe) -> bool {
        self.ask(probe, |reply| ProbeRequest::Echo(7, reply)) == Ok(7)
    }
}

pub(crate) fn pidfd(pid: i32) -> OwnedFd {
    let pid = Pid::from_raw(pid).expect("a process number");
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("the process is there")
}

pub(crate) fn send_signal(pid: i32, signal: Signal) {
    rustix::process::pidfd_send_signal(pidfd(pid), signal).expect("sends a signal");
}

/// Waits until a process has ended; fails when it does not.
pub(crate) fn assert_ends(process: &OwnedFd) {
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    let patience = Timespec::try_from(PATIENCE).expect("a time");
    let ended = rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&patience)));
    assert_eq!(ended, Ok(1), "it ends");
}
