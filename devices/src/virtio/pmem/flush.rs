//! The request queue: flushes, all that wait with one `fdatasync`.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use super::failure::Failure;
use super::protocol::{FAILED, FLUSH, OK, WORD};
use super::{Access, Memory};
use crate::virtio::queue::{Chain, GuestBuffers, Side};
use crate::virtio::worker::{ActiveQueue, StopMode};

/// Serve the queue until it is stopped.
pub(super) async fn serve(memory: Rc<Memory>, mut active: ActiveQueue) -> Vec<ActiveQueue> {
    let size = usize::from(active.queue.size());
    let guest = active.memory().clone();
    let answer = |_| Answer { head: 0, known: false, place: GuestBuffers::new(guest.clone()) };
    let mut flushes = Flushes {
        memory,
        chain: Chain::new(guest.clone(), size),
        answers: (0..size).map(answer).collect(),
    };
    if let Err(failure) = flushes.serve(&mut active).await {
        active.fail(failure.to_string()).await;
    }
    vec![active]
}

/// A request that was taken, and where its answer goes.
struct Answer {
    head: u16,
    /// It is one that there is.
    known: bool,
    place: GuestBuffers,
}

struct Flushes {
    memory: Rc<Memory>,
    chain: Chain,
    /// One for each request that the queue can hold.
    answers: Box<[Answer]>,
}

impl Flushes {
    async fn serve(&mut self, active: &mut ActiveQueue) -> Result<(), Failure> {
        loop {
            match active.available().await? {
                Some(StopMode::Drain) if active.queue.is_recovering() => {}
                Some(_) => return Ok(()),
                None => {}
            }
            let taken_at = executor::now();
            let taken = self.take(active)?;
            let result = self.sync(taken).await;
            if is_aborted(active).await {
                return Ok(());
            }
            if let Err(error) = &result {
                self.memory.complaints.warn(format_args!("pmem: a flush failed: {error}"));
            }
            for answer in &self.answers[..taken] {
                let word = if answer.known && result.is_ok() { OK } else { FAILED };
                answer.place.copy_from(&word.to_le_bytes());
                active.queue.push_used(answer.head, WORD as u32);
            }
            active.publish_taken_at(taken_at);
            executor::yield_now().await;
        }
    }

    /// Takes all requests that wait.
    fn take(&mut self, active: &mut ActiveQueue) -> Result<usize, Failure> {
        let mut taken = 0;
        for answer in &mut self.answers {
            if !active.queue.pop(&mut self.chain)? {
                break;
            }
            answer.head = self.chain.head();
            let request = self.chain.read_array().map(u32::from_le_bytes);
            answer.known = request == Some(FLUSH);
            if (self.chain.writable_bytes() as usize) < WORD {
                return Err(Failure::NoAnswer { head: answer.head });
            }
            answer.place.fill(&self.chain, Side::Writable);
            taken += 1;
        }
        Ok(taken)
    }

    /// What was written before is on the disk after this.
    async fn sync(&self, taken: usize) -> io::Result<()> {
        let asked = self.answers[..taken].iter().any(|answer| answer.known);
        if !asked || self.memory.access == Access::ReadOnly {
            return Ok(());
        }
        self.memory.sync().await
    }
}

/// Whether what was under way counts no more.
async fn is_aborted(active: &ActiveQueue) -> bool {
    poll_fn(|context| Poll::Ready(active.poll_stop(context) == Some(StopMode::Abort))).await
}
