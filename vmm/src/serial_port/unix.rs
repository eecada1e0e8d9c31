//! A Unix socket as the host's end: one client at a time, the next one waits.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use executor::Fd;

use super::input::{self, Pending};
use super::line::Line;
use super::output::{Batches, Tap, write_all};

/// The connected client, if there is one.
#[derive(Clone, Default)]
pub(super) struct Client(Rc<RefCell<Option<Fd>>>);

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
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
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
        *client.0.borrow_mut() = Some(accepted.clone());
        copy(&accepted, &mut pending).await;
        *client.0.borrow_mut() = None;
    }
}

async fn copy(fd: &Fd, pending: &mut Pending) {
    let mut buffer = Vec::new();
    loop {
        let result;
        (result, buffer) = input::read(fd, buffer).await;
        match result {
            Ok(count) if count > 0 => pending.bytes().extend_from_slice(&buffer),
            // A client that leaves, in order or not, makes room for the next.
            _ => return,
        }
        pending.deliver().await;
    }
}

/// Writes to whoever is connected; without a client, output is thrown away.
pub(super) async fn output(line: Arc<Line>, tap: Tap, client: Client) {
    let mut batches = Batches::new(line, tap);
    while let Some(batch) = batches.next().await {
        let fd = client.0.borrow().clone();
        let batch = match fd {
            // The reading side notices that a client is gone.
            Some(fd) => write_all(&fd, batch).await.1,
            None => batch,
        };
        batches.recycle(batch);
    }
}
