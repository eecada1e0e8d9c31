//! Who sleeps at this end of a link, and how to wake them.
//!
//! Each word that somebody may wait for has two waiting flags in its lowest bits. The sleeper
//! raises its flag with an atomic OR that also returns the current value; the peer makes progress
//! with an atomic swap that lowers the flags and returns whether there was a sleeper. So neither
//! can miss the other, and progress that nobody waits for costs no system call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use slab::Slab;

use super::memory::Memory;

/// A thread sleeps in a futex call on the low half of the word.
pub(crate) const FUTEX: u64 = 1;
/// A task sleeps; the eventfd of its process is the doorbell.
pub(crate) const EVENT: u64 = 2;
/// Both.
pub(crate) const WAITING: u64 = FUTEX | EVENT;

/// The sleepers of this end.
#[derive(Default)]
pub(crate) struct Sleepers {
    tasks: Mutex<Slab<Task>>,
    threads: Mutex<Slab<usize>>,
}

struct Task {
    word: usize,
    waker: Option<Waker>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Consistent between any two statements under the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sleepers {
    /// Notes the waker of a task that waits for `word`, under the key that it had before or a new
    /// one.
    pub(crate) fn register_task(&self, key: &mut Option<usize>, word: usize, waker: &Waker) {
        let mut tasks = lock(&self.tasks);
        match *key {
            Some(key) => match &mut tasks[key].waker {
                Some(known) => known.clone_from(waker),
                empty => *empty = Some(waker.clone()),
            },
            None => {
                *key = Some(tasks.insert(Task { word, waker: Some(waker.clone()) }));
            }
        }
    }

    pub(crate) fn remove_task(&self, key: Option<usize>) {
        if let Some(key) = key {
            lock(&self.tasks).remove(key);
        }
    }

    /// Takes the wakers of the tasks whose flag the peer has lowered; of all tasks when the link
    /// is dead.
    pub(crate) fn signalled(&self, memory: &Memory, dead: bool, wakers: &mut Vec<Waker>) {
        for (_, task) in lock(&self.tasks).iter_mut() {
            if dead || memory.word(task.word).load(Ordering::Acquire) & EVENT == 0 {
                wakers.extend(task.waker.take());
            }
        }
    }

    pub(crate) fn register_thread(&self, word: usize) -> usize {
        lock(&self.threads).insert(word)
    }

    pub(crate) fn remove_thread(&self, key: usize) {
        lock(&self.threads).remove(key);
    }

    /// Calls `visit` with each word that a thread sleeps on.
    pub(crate) fn each_thread(&self, memory: &Memory, mut visit: impl FnMut(&AtomicU64)) {
        for (_, word) in lock(&self.threads).iter() {
            visit(memory.word(*word));
        }
    }
}
