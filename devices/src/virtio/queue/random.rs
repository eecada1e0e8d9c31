//! Random bytes from the kernel straight into guest memory.

use std::io;

use super::buffers::GuestBuffers;

impl GuestBuffers {
    /// Fill the first `limit` bytes, or all if there are fewer, with the kernel's random numbers; says
    /// how many. Does not wait: `WouldBlock` means that the host has only just started and has none.
    pub fn fill_random(&self, limit: usize) -> io::Result<usize> {
        let mut done = 0;
        for segment in self.segments() {
            let wanted = segment.len().min(limit - done);
            let mut filled = 0;
            while filled < wanted {
                let place = segment.skip(filled).as_ptr();
                // SAFETY: `wanted` bytes of the segment lie in guest memory that `self` keeps mapped
                // writable; the kernel writes to what is left of them.
                let got =
                    unsafe { libc::getrandom(place.cast(), wanted - filled, libc::GRND_NONBLOCK) };
                match usize::try_from(got) {
                    Ok(got) => filled += got,
                    Err(_) => match io::Error::last_os_error() {
                        error if error.kind() == io::ErrorKind::Interrupted => {}
                        _ if done + filled > 0 => return Ok(done + filled),
                        error => return Err(error),
                    },
                }
            }
            done += filled;
        }
        Ok(done)
    }
}
