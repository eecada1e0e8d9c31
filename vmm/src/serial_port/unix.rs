//! A Unix socket as the host's end: one client at a time, the next one waits.

use std::cell::RefCell;
use std::fs;
use std::future::poll_fn;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use devices::dead_holder;
use executor::Fd;
use rustix::io::Errno;

use super::Absence;
use super::input::{self, Pending};
use super::line::Line;
use super::output::{Batches, Tap, write_all};

/// The connected client, if there is one.
#[derive(Clone, Default)]
pub(super) struct Client(Rc<RefCell<Presence>>);

#[derive(Default)]
struct Presence {
    fd: Option<Fd>,
    /// Who waits for a client.
    waiting: Option<Waker>,
}

impl Client {
    fn set(&self, fd: Option<Fd>) {
        let mut presence = self.0.borrow_mut();
        presence.fd = fd;
        if presence.fd.is_some()
            && let Some(waiting) = presence.waiting.take()
        {
            waiting.wake();
        }
    }

    fn get(&self) -> Option<Fd> {
        self.0.borrow().fd.clone()
    }

    async fn wait(&self) -> Fd {
        poll_fn(|context| match self.get() {
            Some(fd) => Poll::Ready(fd),
            None => {
                self.0.borrow_mut().waiting = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

/// The socket in the file system; it goes with this.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl SocketFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else has removed it already.
        let _ = fs::remove_file(&self.0);
    }
}

/// Removes a socket that nobody listens on any more. Anything else stays.
pub(crate) fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket =
        fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match dead_holder::outlast(|| listener(path), |listener| *listener == Listener::Dead) {
        Err(Listener::Gone) => fs::remove_file(path),
        _ => Ok(()),
    }
}

/// Why nobody answers at a socket.
#[derive(PartialEq, Eq)]
enum Listener {
    /// There is none any more.
    Gone,
    /// The kernel has not closed the files of its process yet.
    Dead,
}

fn listener(path: &Path) -> Result<(), Listener> {
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(Listener::Gone),
        Ok(connection) if is_process_gone(&connection) => Err(Listener::Dead),
        _ => Ok(()),
    }
}

/// Whether the process is gone that listened at the other end.
fn is_process_gone(connection: &UnixStream) -> bool {
    let peer = rustix::net::sockopt::socket_peercred(connection);
    peer.is_ok_and(|peer| rustix::process::test_kill_process(peer.pid) == Err(Errno::SRCH))
}

/// Takes one client after the other and copies what it sends to the device.
pub(super) async fn serve(listener: Fd, client: Client, mut pending: Pending) {
    loop {
        let accepted = match listener.accept().await.and_then(Fd::new) {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!("serial port: no more clients: {error}");
                return;
            }
        };
        client.set(Some(accepted.clone()));
        copy(&accepted, &mut pending).await;
        client.set(None);
    }
}

async fn copy(fd: &Fd, pending: &mut Pending) {
    let mut buffer = Vec::new();
    loop {
        let result;
        (result, buffer) = input::read(fd, pending.read_bytes(), buffer).await;
        match result {
            Ok(count) if count > 0 => pending.bytes().extend_from_slice(&buffer),
            // A client that leaves, in order or not, makes room for the next.
            _ => return,
        }
        pending.deliver().await;
    }
}

/// Writes to whoever is connected. Without a client, output is thrown away, or waits for one.
pub(super) async fn output(line: Arc<Line>, tap: Tap, client: Client, absence: Absence) {
    let mut batches = Batches::new(line, tap);
    while let Some(batch) = batches.next().await {
        let fd = match absence {
            Absence::Stalls | Absence::Drops => client.get(),
            Absence::Waits => Some(client.wait().await),
        };
        let batch = match fd {
            // The reading side notices that a client is gone.
            Some(fd) => write_all(&fd, batch).await.1,
            None => batch,
        };
        batches.recycle(batch);
    }
}
