//! A network of this process's own, and frames that somebody sends to an interface there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SendFlags, SocketAddrAny, SocketFlags, SocketType};

use crate::LoadError;
use crate::frames::Frames;
use crate::ring::system;

/// How long an interface may take to appear.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Gives this thread, and all threads and processes that it starts from now on, a network namespace of their
/// own: nobody else sees what is done there, and it goes away with them.
#[allow(unsafe_code)]
pub fn leave_network() -> io::Result<()> {
    // SAFETY: nothing of this thread depends on its network: what is open stays what it is.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Does `work` while a thread sends frames to the interface as fast as it can.
pub fn flooded<T: Send>(
    interface: &str,
    frames: &Frames,
    work: impl FnOnce() -> Result<T, LoadError> + Send,
) -> Result<T, LoadError> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(interface, frames, &over));
        let result = work();
        over.store(true, Ordering::Relaxed);
        let flooded = flood.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // The first trouble is the one to tell of.
        let result = result?;
        flooded.map(|()| result)
    })
}

fn flood(interface: &str, frames: &Frames, over: &AtomicBool) -> Result<(), LoadError> {
    let Some(socket) = packet_socket(interface, over)? else { return Ok(()) };
    let frame = frames.frame();
    while !over.load(Ordering::Relaxed) {
        // What the interface has no room for is lost.
        let _ = rustix::net::send(&socket, &frame, SendFlags::empty());
    }
    Ok(())
}

/// A socket that sends whole frames to an interface and takes none; none where it is over before there is one.
#[allow(unsafe_code)]
fn packet_socket(interface: &str, over: &AtomicBool) -> Result<Option<OwnedFd>, LoadError> {
    let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
    let socket = rustix::net::socket_with(AddressFamily::PACKET, kind, flags, None);
    let socket = socket.map_err(|errno| system("make a packet socket", errno))?;
    let begin = Instant::now();
    let index = loop {
        match rustix::net::netdevice::name_to_index(socket.as_fd(), interface) {
            Ok(index) => break index,
            Err(errno) if begin.elapsed() > PATIENCE => return Err(system("find a tap", errno)),
            Err(_) if over.load(Ordering::Relaxed) => return Ok(None),
            Err(_) => std::thread::yield_now(),
        }
    };
    // SAFETY: all zeroes is a valid `sockaddr_ll`, which has integers only.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index as i32;
    let length = size_of_val(&address) as u32;
    // SAFETY: a socket address of this length, which is copied.
    let address = unsafe { SocketAddrAny::read((&raw const address).cast(), length) };
    rustix::net::bind(&socket, &address).map_err(|errno| system("bind to a tap", errno))?;
    Ok(Some(socket))
}
