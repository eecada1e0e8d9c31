//! Back ends of this program, and sockets to them.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// A back end that does nothing for so long hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A back end that is ended with the test.
pub(crate) struct Device(pub(crate) Child);

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn connect(path: &Path) -> UnixStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(socket) = UnixStream::connect(path) {
            return socket;
        }
        assert!(Instant::now() < deadline, "nobody listens on {}", path.display());
        std::thread::yield_now();
    }
}
