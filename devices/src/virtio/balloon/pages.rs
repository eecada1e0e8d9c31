//! The queues on which the driver gives pages up, takes them back, and says which are free.

use std::rc::Rc;

use super::failure::Failure;
use super::frames::Frames;
use super::protocol::Role;
use super::state::Balloon;
use crate::virtio::queue::Chain;
use crate::virtio::worker::{ActiveQueue, StopMode};

/// Page frame numbers of a chain that are looked at: more than 250 times what Linux sends, and few
/// enough that a reset need not wait long for them.
const MOST_FRAMES: usize = 1 << 16;
/// Page frame numbers read at once.
const CHUNK: usize = 256;
/// Bytes of a page frame number.
const NUMBER: usize = size_of::<u32>();

/// Serve one of these queues until it is stopped.
pub(super) async fn serve(
    balloon: Rc<Balloon>,
    role: Role,
    mut active: ActiveQueue,
) -> Vec<ActiveQueue> {
    let size = usize::from(active.queue.size());
    let mut chain = Chain::new(active.memory().clone(), size);
    let mut pages = Pages { balloon, role, frames: Frames::new() };
    if let Err(failure) = pages.serve(&mut active, &mut chain).await {
        active.fail(failure.to_string()).await;
    }
    vec![active]
}

struct Pages {
    balloon: Rc<Balloon>,
    role: Role,
    frames: Frames,
}

impl Pages {
    async fn serve(&mut self, active: &mut ActiveQueue, chain: &mut Chain) -> Result<(), Failure> {
        loop {
            match active.available().await? {
                Some(StopMode::Drain) if active.queue.is_recovering() => {}
                Some(_) => return Ok(()),
                None => {}
            }
            // One at a time: each may take long, and others share the thread.
            let taken_at = executor::now();
            if active.queue.pop(chain)? {
                let freed = self.balloon.freed();
                match self.role {
                    Role::Inflate => self.inflate(chain),
                    Role::Reporting => self.report(chain),
                    // What the driver takes back comes back at the first touch.
                    Role::Deflate | Role::Statistics => {}
                }
                active.queue.push_used(chain.head(), 0);
                active.metrics().moved(self.balloon.freed() - freed);
                active.publish_taken_at(taken_at);
            }
            executor::yield_now().await;
        }
    }

    /// Frees the pages whose numbers the chain holds.
    fn inflate(&mut self, chain: &mut Chain) {
        let mut left = (chain.readable_bytes() as usize / NUMBER).min(MOST_FRAMES);
        let mut bytes = [0; CHUNK * NUMBER];
        while left > 0 {
            let part = left.min(CHUNK);
            let read = &mut bytes[..part * NUMBER];
            if !chain.read_exact(read) {
                break;
            }
            let (numbers, _) = read.as_chunks();
            for number in numbers {
                self.frames.push(u32::from_le_bytes(*number));
            }
            left -= part;
            if left == 0 || self.frames.is_full() {
                let (balloon, memory) = (&self.balloon, chain.memory());
                self.frames.drain_ranges(|range| balloon.free_frames(memory, range));
            }
        }
    }

    /// Frees what the chain consists of, unless the driver expects to find something there.
    fn report(&mut self, chain: &Chain) {
        if self.balloon.poison.get() != 0 {
            return;
        }
        let memory = chain.memory();
        for segment in chain.writable() {
            if let Some(address) = memory.guest_address(segment.as_ptr()) {
                let (bytes, count) = (segment.len() as u64, &self.balloon.reported);
                self.balloon.free(memory, address, bytes, count);
            }
        }
    }
}
