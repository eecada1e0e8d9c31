//! All clients of a server.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use executor::{Fd, TaskGroup};
use fileserver::{Access, Budget, Grant, Ids, Ledger, Tree};

use super::connection::Connection;
use super::session::{Session, SessionOptions};
use super::shape;

/// Clients at a time; more are turned away.
const MOST_CONNECTIONS: usize = 32;
/// How long nobody is accepted when there are no descriptors.
const REST: Duration = Duration::from_millis(100);

/// What is served to all clients.
#[derive(Debug)]
pub struct Serving {
    /// The directory; `O_PATH` will do.
    pub directory: OwnedFd,
    /// What clients may do.
    pub access: Access,
    /// Whose files are whose.
    pub ids: Ids,
    /// What sessions do.
    pub options: SessionOptions,
}

/// The clients of a server: each with a tree of its own, all with one budget.
pub struct Connections {
    serving: Serving,
    budget: Budget,
    open: Rc<Cell<usize>>,
    tasks: TaskGroup,
}

impl Connections {
    /// None yet. Needs an executor on this thread.
    pub fn new(serving: Serving) -> Self {
        let open = Rc::default();
        Self { serving, budget: Budget::default(), open, tasks: TaskGroup::new() }
    }

    /// Accepts clients for ever, as far as `check` lets them.
    pub async fn accept(&self, listener: &Fd, check: impl Fn(BorrowedFd<'_>) -> io::Result<()>) {
        loop {
            match listener.accept().await {
                Ok(socket) => match check(socket.as_fd()) {
                    Ok(()) => self.add(socket),
                    Err(error) => log::warn!("a client of 9P is turned away: {error}"),
                },
                Err(error) => {
                    // Of descriptors or memory there may be more when another client has gone.
                    log::warn!("a client of 9P is not accepted: {error}");
                    executor::sleep(REST).await;
                }
            }
        }
    }

    /// Serves one client, beside the others.
    pub fn add(&self, socket: OwnedFd) {
        if self.open.get() >= MOST_CONNECTIONS {
            log::warn!("there are {MOST_CONNECTIONS} clients of 9P: one more is turned away");
            return;
        }
        match self.connection(socket) {
            Ok(mut connection) => {
                let open = self.open.clone();
                open.set(open.get() + 1);
                self.tasks.spawn(async move {
                    if let Err(error) = connection.serve().await {
                        log::warn!("a client of 9P is cut off: {error}");
                    }
                    open.set(open.get() - 1);
                });
            }
            Err(error) => log::warn!("a client of 9P cannot be served: {error}"),
        }
    }

    /// Waits until there are no clients any more.
    pub async fn wait(&self) {
        self.tasks.wait().await;
    }

    fn connection(&self, socket: OwnedFd) -> Result<Connection, Box<dyn std::error::Error>> {
        let Serving { directory, access, ids, options } = &self.serving;
        let directory = rustix::io::fcntl_dupfd_cloexec(directory.as_fd(), 0)?;
        let root = Grant { directory, access: *access };
        let mut tree = Tree::of_directory(root, ids.clone(), Ledger::private(shape(0))?)?;
        tree.share_budget(&self.budget);
        Ok(Connection::new(Fd::new(socket)?, Session::new(tree, *options)))
    }
}
