//! One ring: its queues, and the system call that only makes sense for what is in them.

use std::collections::VecDeque;
use std::mem::MaybeUninit;

use io_uring::{IoUring, cqueue, squeue};

use super::setup::{EnterTarget, Submitter};
use crate::config::Submission;
use crate::driver::Wait;

/// Completions that are taken at once.
pub(super) const BATCH: usize = 64;

pub(super) struct Ring {
    // Before `inner`: its registration ends through the ring's descriptor.
    enter: EnterTarget,
    pub(super) inner: IoUring,
    submission: Submission,
    /// Completions taken off the queue early because it was in the way of submissions.
    backlog: VecDeque<cqueue::Entry>,
    pub(super) system_calls: u64,
}

impl Ring {
    pub(super) fn new(inner: IoUring, enter: EnterTarget, submission: Submission) -> Self {
        Ring { enter, inner, submission, backlog: VecDeque::new(), system_calls: 0 }
    }

    /// Queues an entry, making room by a system call when the queue is full. What it points to is valid
    /// until its completion: see [`Operation`](crate::ops::Operation).
    pub(super) fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: who makes entries makes them of operations, or points to what is static.
            if unsafe { self.inner.submission().push(entry) }.is_ok() {
                return;
            }
            let submitter = match self.submission {
                Submission::BySystemCall => Submitter::Caller,
                Submission::ByKernelThread(_) => Submitter::FullThread,
            };
            self.enter(submitter, Wait::No);
            if self.inner.submission().is_full() {
                // The kernel takes nothing more before completions are taken.
                let completions: Vec<_> = self.inner.completion().collect();
                self.backlog.extend(completions);
            }
        }
    }

    /// Who takes what is queued now, if there is anything for them to do.
    fn submitter(&mut self) -> Option<Submitter> {
        let submission = self.inner.submission();
        if submission.is_empty() {
            return None;
        }
        match self.submission {
            Submission::BySystemCall => Some(Submitter::Caller),
            // Asks after a fence: the thread looks at the queue once more after it has said that it sleeps.
            Submission::ByKernelThread(_) => {
                submission.need_wakeup().then_some(Submitter::SleepingThread)
            }
        }
    }

    /// The one system call: submits, and waits if asked to.
    fn enter(&mut self, submitter: Submitter, wait: Wait) {
        let to_submit = self.inner.submission().len() as u32;
        self.system_calls += 1;
        match self.enter.enter(to_submit, submitter, wait) {
            Ok(_) => {}
            // EINTR: a signal; ETIME: the time is over; EBUSY: take completions first; EAGAIN: no
            // memory for requests just now. What was not submitted stays queued for the next turn.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN)
                ) => {}
            Err(error) => panic!("io_uring_enter on our own ring failed: {error}"),
        }
    }

    /// Hands over what is queued.
    pub(super) fn flush(&mut self) {
        if let Some(submitter) = self.submitter() {
            self.enter(submitter, Wait::No);
        }
    }

    /// The same, and sees it taken.
    pub(super) fn drain(&mut self) {
        self.flush();
        while self.submission != Submission::BySystemCall && !self.inner.submission().is_empty() {
            std::thread::yield_now();
            self.flush();
        }
    }

    /// Hands over what is queued and waits, if asked to, for a completion.
    pub(super) fn turn(&mut self, wait: Wait) {
        // Completions that are there already end a wait before it begins.
        let wait = if self.backlog.is_empty() { wait } else { Wait::No };
        let submitter = self.submitter();
        if wait != Wait::No || submitter.is_some() || self.has_deferred_work() {
            self.enter(submitter.unwrap_or(Submitter::Thread), wait);
        }
    }

    /// Hands over what is queued and has the kernel look what has completed, where it only looks when asked.
    pub(super) fn poll(&mut self) {
        match self.submission {
            Submission::BySystemCall => self.enter(Submitter::Caller, Wait::No),
            Submission::ByKernelThread(_) => self.turn(Wait::No),
        }
    }

    /// The kernel has something that only shows up in the completion queue after an enter.
    fn has_deferred_work(&mut self) -> bool {
        let submission = self.inner.submission();
        submission.taskrun() || submission.cq_overflow()
    }

    pub(super) fn has_completions(&mut self) -> bool {
        !self.backlog.is_empty() || !self.inner.completion().is_empty() || self.has_deferred_work()
    }

    /// Takes the next completions, if there are any. Not all at once: what becomes of them may need the ring.
    pub(super) fn take<'b>(
        &mut self,
        batch: &'b mut [MaybeUninit<cqueue::Entry>; BATCH],
    ) -> &'b mut [cqueue::Entry] {
        if self.backlog.is_empty() {
            return self.inner.completion().fill(batch);
        }
        let count = self.backlog.len().min(BATCH);
        for (place, entry) in batch.iter_mut().zip(self.backlog.drain(..count)) {
            place.write(entry);
        }
        // SAFETY: so many were just written.
        unsafe { batch[..count].assume_init_mut() }
    }
}
