//! A port of the host to which a guest connects.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use executor::Fd;

use crate::Guest;

/// The Unix socket to which a guest's connections go. It goes away with this.
#[derive(Debug)]
pub(crate) struct HostPort {
    listener: UnixListener,
    path: PathBuf,
}

impl HostPort {
    /// Listens beside the guest's socket. What was left by somebody who is gone is replaced.
    pub(crate) fn bind(guest: &Guest, port: u32) -> io::Result<Self> {
        let path = guest.host_port_path(port);
        let listener = match UnixListener::bind(&path) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && std::os::unix::net::UnixStream::connect(&path).is_err() =>
            {
                std::fs::remove_file(&path)?;
                UnixListener::bind(&path)?
            }
            result => result?,
        };
        Ok(HostPort { listener, path })
    }

    /// For `accept`, on the current executor.
    pub(crate) fn listen(&self) -> io::Result<Fd> {
        Fd::unregistered(self.listener.try_clone()?)
    }
}

impl Drop for HostPort {
    fn drop(&mut self) {
        // It may be gone with its folder already.
        let _ = std::fs::remove_file(&self.path);
    }
}
