//! Who sleeps at this end of a link, and how to wake them.
//!
//! Each word that somebody may wait for has two waiting flags in its lowest bits. The sleeper
//! raises its flag with an atomic OR that also returns the current value; the peer makes progress
//! with an atomic swap that lowers the flags and returns whether there was a sleeper. So neither
//! can miss the other, and progress that nobody waits for costs no system call.
//!
//! A task on a thread that [looks](super::looking) waits without a flag until the thread sleeps: the
//! value that it saw is noted, and every other one is progress.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// How many tasks are [`Notice::Unflagged`]. Changes under the lock of `tasks`.
    unflagged: Arc<AtomicUsize>,
}

struct Task {
    word: usize,
    waker: Option<Waker>,
    notice: Notice,
}

/// How progress is noticed.
#[derive(Clone, Copy)]
enum Notice {
    /// The peer lowers the flag.
    Flag,
    /// The word differs from this value. For tasks with a waker.
    Unflagged(u64),
}

impl Task {
    fn has_progressed(&self, value: u64) -> bool {
        match self.notice {
            Notice::Flag => value & EVENT == 0,
            Notice::Unflagged(seen) => (value ^ seen) & !WAITING != 0,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Consistent between any two statements under the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sleepers {
    /// How many tasks wait without a flag.
    pub(crate) fn unflagged(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.unflagged)
    }

    fn set_notice(&self, task: &mut Task, notice: Notice) {
        let count = |notice| usize::from(matches!(notice, Notice::Unflagged(_)));
        let before = self.unflagged.load(Ordering::Relaxed);
        let after = before + count(notice) - count(task.notice);
        self.unflagged.store(after, Ordering::Relaxed);
        task.notice = notice;
    }

    fn enter<'a>(
        tasks: &'a mut Slab<Task>,
        key: &mut Option<usize>,
        word: usize,
        waker: &Waker,
    ) -> &'a mut Task {
        let key = *key
            .get_or_insert_with(|| tasks.insert(Task { word, waker: None, notice: Notice::Flag }));
        let task = &mut tasks[key];
        match &mut task.waker {
            Some(known) => known.clone_from(waker),
            empty => *empty = Some(waker.clone()),
        }
        task
    }

    /// Notes the waker of a task that waits for `word`, under the key that it had before or a new
    /// one. The caller raises the flag after it.
    pub(crate) fn register_task(&self, key: &mut Option<usize>, word: usize, waker: &Waker) {
        let mut tasks = lock(&self.tasks);
        let task = Self::enter(&mut tasks, key, word, waker);
        self.set_notice(task, Notice::Flag);
    }

    /// The same for a task on a thread that looks. Returns the value of the word.
    pub(crate) fn register_unflagged(
        &self,
        memory: &Memory,
        key: &mut Option<usize>,
        word: usize,
        waker: &Waker,
    ) -> u64 {
        let mut tasks = lock(&self.tasks);
        let task = Self::enter(&mut tasks, key, word, waker);
        let value = memory.word(word).load(Ordering::Acquire);
        // A flag that is still up does for this wait, too.
        let flagged = value & EVENT != 0;
        self.set_notice(task, if flagged { Notice::Flag } else { Notice::Unflagged(value) });
        value
    }

    /// Raises the flags of all tasks that wait without, and takes the wakers of those that need
    /// not wait any more.
    pub(crate) fn raise_flags(&self, memory: &Memory, wakers: &mut Vec<Waker>) {
        for (_, task) in lock(&self.tasks).iter_mut() {
            if matches!(task.notice, Notice::Unflagged(_)) {
                let value = memory.word(task.word).fetch_or(EVENT, Ordering::SeqCst);
                if task.has_progressed(value) {
                    wakers.extend(task.waker.take());
                }
                self.set_notice(task, Notice::Flag);
            }
        }
    }

    pub(crate) fn remove_task(&self, key: Option<usize>) {
        if let Some(key) = key {
            let mut tasks = lock(&self.tasks);
            let mut task = tasks.remove(key);
            self.set_notice(&mut task, Notice::Flag);
        }
    }

    /// Takes the wakers of the tasks for which the peer has made progress; of all tasks when the
    /// link is dead.
    pub(crate) fn signalled(&self, memory: &Memory, dead: bool, wakers: &mut Vec<Waker>) {
        for (_, task) in lock(&self.tasks).iter_mut() {
            if task.waker.is_none() {
                continue;
            }
            if dead || task.has_progressed(memory.word(task.word).load(Ordering::Acquire)) {
                wakers.extend(task.waker.take());
                self.set_notice(task, Notice::Flag);
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
