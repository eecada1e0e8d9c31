//! The task that listens for a link: to the doorbell and to the socket.

use std::future::Future;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use executor::{Either, PollFlags};

use super::core::{Core, LinkDeath};

/// Says that nobody listens any more when the task ends, in whatever way. The task does not keep
/// the link alive.
struct Driving(Weak<Core>);

impl Drop for Driving {
    fn drop(&mut self) {
        if let Some(core) = self.0.upgrade() {
            core.driven.store(false, Ordering::SeqCst);
        }
    }
}

/// Listens until the link ends.
pub(crate) fn drive(core: &Arc<Core>) -> impl Future<Output = io::Result<LinkDeath>> + use<> {
    let driving = Driving(Arc::downgrade(core));
    let descriptors =
        (core.own_bell().try_clone_to_owned(), core.lane.socket().try_clone_to_owned());
    async move {
        let link = &driving.0;
        let bell = executor::Fd::new(descriptors.0?)?;
        let socket = executor::Fd::unregistered(descriptors.1?)?;
        let outcome = executor::select(listen(link, &bell), hang_up(&socket)).await;
        let Some(core) = link.upgrade() else {
            return Ok(LinkDeath::ClosedHere);
        };
        match outcome {
            Either::Left(Ok(death)) => return Ok(death),
            Either::Left(Err(error)) | Either::Right(Err(error)) => return Err(error),
            Either::Right(Ok(())) => core.end(LinkDeath::PeerDied),
        }
        // It was ended above, if not before.
        Ok(core.death().unwrap_or(LinkDeath::PeerDied))
    }
}

/// Wakes the tasks for which the peer rings.
async fn listen(link: &Weak<Core>, bell: &executor::Fd) -> io::Result<LinkDeath> {
    let mut rings = bell.notifications();
    let mut wakers = Vec::new();
    loop {
        {
            let Some(core) = link.upgrade() else {
                return Ok(LinkDeath::ClosedHere);
            };
            core.driven.store(true, Ordering::SeqCst);
            if let Some(death) = core.death() {
                return Ok(death);
            }
            // The first time for what was rung before anybody listened.
            core.wake_tasks(&mut wakers);
        }
        rings.next().await?;
    }
}

/// Waits until the socket hangs up, which the death of the peer does and closing the link here.
async fn hang_up(socket: &executor::Fd) -> io::Result<()> {
    loop {
        let flags = socket.poll(PollFlags::HUP).await?;
        if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
            return Ok(());
        }
    }
}
