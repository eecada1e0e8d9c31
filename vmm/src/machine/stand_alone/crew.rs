//! Devices that share a sandboxed process, from its first front end to its last.
//!
//! ```text
//!            a front end comes                  the last one has gone
//!    none ─────────────────────► process ─────────────────────────────► ending
//!     ▲                             │  ▲ │                                 │
//!     │                             │  └─┘ others come and go              │
//!     └─────────────────────────────┴──────────────────────────────────────┘
//!                            it is dead
//! ```
//!
//! A process that dies takes all its connections with it. Their front ends connect again, and the first of
//! them gets the next process, which the others join.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use devices::virtio::vhost_user::VhostUserStart;
use executor::TaskGroup;
use ipc::{Receiver, Sender};

use super::announcement::Announcement;
use crate::machine::Error;
use crate::machine::death_record::{self, Witness};
use crate::warden::{
    Actor, ActorId, ActorLink, Death, Served, Spawner, Start, WardenError, WardenEvent,
};

/// A device of a crew.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) actor: Actor,
}

/// Devices that are served by one process.
pub(super) struct Crew {
    members: Vec<Member>,
    spawner: Spawner,
    /// For all crews of a warden.
    next_id: Rc<Cell<u64>>,
    process: RefCell<Option<Rc<Process>>>,
}

/// How a front end was served.
#[derive(Debug)]
pub(super) enum End {
    /// It has gone; an error says why it had to.
    Gone(Served),
    /// The process is dead.
    Died(Death),
}

struct Process {
    id: ActorId,
    pid: Cell<Option<i32>>,
    /// One for each member.
    posts: Vec<Post>,
    death: Announcement<Death>,
    /// What carries its links and its logs.
    _tasks: TaskGroup,
}

/// A member's way to its actor.
struct Post {
    /// None when the process is to end.
    sender: RefCell<Option<Sender<Start>>>,
    /// None while a front end is served, whose task has it.
    served: RefCell<Option<Receiver<Served>>>,
    witness: Witness,
}

impl Post {
    fn is_busy(&self) -> bool {
        self.served.borrow().is_none()
    }
}

impl Process {
    fn new(
        id: ActorId,
        links: Result<Vec<ActorLink>, WardenError>,
        members: &[Member],
    ) -> Result<Self, Error> {
        let tasks = TaskGroup::new();
        let posts = links?.into_iter().zip(members).map(|(actor, member)| {
            let ActorLink { link, sender, served, log } = actor;
            let witness = Witness::new(&member.name, death_record::tap(), log);
            tasks.spawn(witness.clone().listen());
            tasks.spawn(async move { link.drive().await });
            Post { sender: RefCell::new(Some(sender)), served: RefCell::new(Some(served)), witness }
        });
        let posts = posts.collect();
        let (pid, death) = (Cell::new(None), Announcement::default());
        Ok(Self { id, pid, posts, death, _tasks: tasks })
    }

    fn is_ending(&self) -> bool {
        self.posts.iter().any(|post| post.sender.borrow().is_none())
    }

    /// Lets it end if nobody needs it.
    fn end_if_idle(&self) {
        if !self.posts.iter().any(Post::is_busy) {
            for post in &self.posts {
                post.sender.take();
            }
        }
    }
}

impl Crew {
    pub(super) fn new(members: Vec<Member>, spawner: Spawner, next_id: Rc<Cell<u64>>) -> Self {
        Self { members, spawner, next_id, process: RefCell::default() }
    }

    /// Serves a front end of one of the members, who serves no other.
    pub(super) async fn serve(&self, member: usize, start: VhostUserStart) -> Result<End, Error> {
        let process = self.process().await?;
        let post = &process.posts[member];
        let Some(mut served) = post.served.take() else { return Err(Error::NeverBegan) };
        if let Some(pid) = process.pid.get() {
            self.say_who_serves(member, pid);
        }
        let sent = match &*post.sender.borrow() {
            Some(sender) => sender.try_send(Start::VhostUser(Box::new(start))).is_ok(),
            None => false,
        };
        // What is dead takes nothing and says nothing.
        let outcome = if sent { served.recv().await.ok() } else { None };
        let end = match outcome {
            Some(outcome) => End::Gone(outcome),
            None => End::Died(process.death.wait().await),
        };
        post.served.replace(Some(served));
        process.end_if_idle();
        Ok(end)
    }

    /// The process that lives, or a new one.
    async fn process(&self) -> Result<Rc<Process>, Error> {
        loop {
            let process = self.process.borrow().clone();
            match process {
                Some(process) if process.is_ending() => drop(process.death.wait().await),
                Some(process) => return Ok(process),
                None => {
                    let id = ActorId(self.next_id.get());
                    self.next_id.set(id.0 + 1);
                    let actors = self.members.iter().map(|member| member.actor.clone());
                    let links = self.spawner.spawn_together(id, actors);
                    let process = Process::new(id, links, &self.members)?;
                    self.process.replace(Some(Rc::new(process)));
                }
            }
        }
    }

    fn say_who_serves(&self, member: usize, pid: i32) {
        log::info!("{}: served by process {pid}", self.members[member].name);
    }

    fn is_served_by(&self, id: ActorId) -> bool {
        self.process.borrow().as_ref().is_some_and(|process| process.id == id)
    }

    fn started(&self, pid: i32) {
        let Some(process) = self.process.borrow().clone() else { return };
        process.pid.set(Some(pid));
        let busy = process.posts.iter().enumerate().filter(|(_, post)| post.is_busy());
        busy.for_each(|(member, _)| self.say_who_serves(member, pid));
    }

    fn died(&self, death: &Death) {
        let Some(process) = self.process.take() else { return };
        for (post, member) in process.posts.iter().zip(&self.members) {
            // Also passes on what is left of its log.
            let record = post.witness.record(death);
            if post.is_busy() && !death.is_orderly() {
                log::warn!("{}: {record}", member.name);
            }
        }
        process.death.make(*death);
    }
}

/// Tells crews what the warden says, until it can say nothing more.
pub(super) async fn listen(mut events: Receiver<WardenEvent>, crews: Vec<Rc<Crew>>) -> Error {
    loop {
        let Ok(event) = events.recv().await else { return Error::WardenDied };
        match event {
            WardenEvent::Started { id, pid } => {
                let crew = crews.iter().find(|crew| crew.is_served_by(id));
                crew.inspect(|crew| crew.started(pid));
            }
            WardenEvent::Died { id, death } => {
                let crew = crews.iter().find(|crew| crew.is_served_by(id));
                crew.inspect(|crew| crew.died(&death));
            }
            WardenEvent::Failed { reason, .. } | WardenEvent::Unusable { reason } => {
                return Error::Sandbox(reason);
            }
        }
    }
}
