//! Which ports programs of the guest listen on.
//!
//! The kernel says when sockets begin and cease to listen (the event `sock/inet_sock_set_state` of its
//! tracing); the table of sockets is read then. A kernel without it is asked every second, while a host wants
//! to know.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use executor::{Fd, PollFlags, select};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

/// Of a kernel without events.
const INTERVAL: Duration = Duration::from_secs(1);
/// Also with events: one may be lost, and sockets also go with their network namespaces.
const LONG_INTERVAL: Duration = Duration::from_secs(30);
/// Ports below are those of the system, which are no affair of the host's.
const FIRST_PORT: u16 = 1024;
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// `TCP_LISTEN`.
const LISTENING: &str = "0A";
/// `0.0.0.0`, `127.0.0.1`, `::` and `::1` as the tables have them.
const LOCAL: [&str; 4] = [
    "00000000",
    "0100007F",
    "00000000000000000000000000000000",
    "00000000000000000000000001000000",
];
/// Where the kernel's tracing is while it is set up.
const TRACING: &str = "/run/.vmm-tracing";

/// Waits until the ports are others than those that are known. Some are left out.
pub(crate) async fn changed(known: &[u16], left_out: impl Fn(u16) -> bool) -> Vec<u16> {
    let events = Events::open();
    if let Err(error) = &events {
        log::debug!("the kernel does not tell who listens: {error}");
    }
    loop {
        let mut ports = now();
        ports.retain(|&port| !left_out(port));
        if ports != known {
            return ports;
        }
        match &events {
            Ok(events) => {
                let _ = select(pin!(events.next()), pin!(executor::sleep(LONG_INTERVAL))).await;
            }
            Err(_) => executor::sleep(INTERVAL).await,
        }
    }
}

/// In order, each once.
fn now() -> Vec<u16> {
    let tables = TABLES.iter().filter_map(|table| fs::read_to_string(table).ok());
    let mut ports: Vec<u16> = tables.flat_map(|table| parse(&table)).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// `  0: 0100007F:1F40 00000000:0000 0A ...` (proc(5)).
pub(crate) fn parse(table: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (address, port) = words.next()?.split_once(':')?;
        let state = words.nth(1)?;
        let port = u16::from_str_radix(port, 16).ok()?;
        (state == LISTENING && LOCAL.contains(&address) && port >= FIRST_PORT).then_some(port)
    };
    table.lines().filter_map(port).collect()
}

/// An instance of the kernel's tracing that has this event alone.
struct Events {
    pipe: Fd,
}

impl Events {
    fn open() -> io::Result<Self> {
        let folder = Path::new(TRACING);
        fs::create_dir_all(folder)?;
        rustix::mount::mount("tracefs", folder, "tracefs", MountFlags::empty(), None)?;
        let opened = Self::set_up(&folder.join("instances/vmm"));
        // What is open stays.
        let _ = rustix::mount::unmount(folder, UnmountFlags::DETACH);
        let _ = fs::remove_dir(folder);
        opened
    }

    fn set_up(instance: &Path) -> io::Result<Self> {
        match fs::create_dir(instance) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let write = |file: &str, text: &str| {
            OpenOptions::new()
                .write(true)
                .open(instance.join(file))
                .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        };
        // Little is enough, and at once.
        write("buffer_size_kb", "8")?;
        write("buffer_percent", "0")?;
        write("events/sock/inet_sock_set_state/filter", "newstate == 10 || oldstate == 10")?;
        write("events/sock/inet_sock_set_state/enable", "1")?;
        let pipe: File = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(instance.join("trace_pipe"))?;
        Ok(Self { pipe: Fd::new(pipe)? })
    }

    /// Waits for one, and forgets it with those that are there.
    async fn next(&self) -> io::Result<()> {
        self.pipe.poll(PollFlags::IN).await?;
        let mut text = [0; 4096];
        loop {
            match rustix::io::read(self.pipe.as_fd(), &mut text) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn those_of_the_loopback_that_listen_are_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
             0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0\n   \
             1: 0200000A:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0\n   \
             2: 0100007F:1F42 0100007F:0016 01 00000000:00000000 00:00000000 00000000 0\n   \
             3: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0\n   \
             4: 00000000000000000000000000000000:2328 00000000000000000000000000000000:0000 0A 0\n";
        assert_eq!(parse(table), [8000, 9000]);
    }

    proptest! {
        #[test]
        fn any_table_is_read(table: String) {
            let _ = parse(&table);
        }
    }
}
