//! Tasks that live and end together.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll};

use super::header::TaskRef;
use super::waker::LocalWaker;
use super::{cancel, spawn_on};
use crate::core::{self, Core};

/// A set of tasks that can be cancelled and waited for as one.
///
/// The group also counts the operations that its tasks abandoned: futures dropped by a task of the
/// group, be it in a `select` or because the task was cancelled. So when
/// [`cancel_all`](TaskGroup::cancel_all) returns, the kernel uses no buffer of the group any more.
///
/// Dropping the group cancels its tasks without waiting.
pub struct TaskGroup {
    inner: Rc<GroupInner>,
    core: Rc<Core>,
}

#[derive(Default)]
pub(crate) struct GroupInner {
    tasks: RefCell<Vec<TaskRef>>,
    /// Operations whose futures are gone and whose completions are not there yet.
    abandoned: Cell<usize>,
    waiter: RefCell<Option<LocalWaker>>,
}

impl TaskGroup {
    /// An empty group.
    ///
    /// # Panics
    ///
    /// When no executor runs on this thread.
    pub fn new() -> Self {
        let core = core::current().expect("a TaskGroup needs an executor that runs on this thread");
        TaskGroup { inner: Rc::default(), core }
    }

    /// Spawns a task into the group; its output is dropped.
    pub fn spawn<F>(&self, future: F)
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let task = spawn_on(&self.core, future, Some(Rc::clone(&self.inner)));
        task.has_handle.set(false);
    }

    /// How many tasks have not ended.
    pub fn len(&self) -> usize {
        self.inner.tasks.borrow().len()
    }

    /// Whether all tasks have ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until all tasks have ended by themselves and nothing of them is in flight.
    pub async fn wait(&self) {
        poll_fn(|context| self.poll_empty(context)).await;
    }

    /// Cancels all tasks and waits until nothing of them is in flight.
    ///
    /// Called from a task of the group, this would wait for itself.
    pub async fn cancel_all(&self) {
        self.cancel_now();
        self.wait().await;
    }

    /// Cancels all tasks without waiting for their operations.
    pub fn cancel_now(&self) {
        loop {
            // A task that is being polled right now is only marked, and stays in the list; hence
            // the list as it is now, and once more when dropping a future spawned another.
            let tasks = self.inner.tasks.borrow().clone();
            let before = tasks.len();
            for task in &tasks {
                cancel(&self.core, task);
            }
            if self.is_empty() || self.len() >= before {
                return;
            }
        }
    }

    fn poll_empty(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.inner.is_idle() {
            return Poll::Ready(());
        }
        let waiter = &self.inner.waiter;
        let previous = LocalWaker::store(&mut waiter.borrow_mut(), context.waker(), &self.core);
        drop(previous);
        Poll::Pending
    }
}

impl Default for TaskGroup {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TaskGroup {
    fn drop(&mut self) {
        self.cancel_now();
    }
}

impl std::fmt::Debug for TaskGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskGroup")
            .field("tasks", &self.len())
            .field("abandoned", &self.inner.abandoned.get())
            .finish_non_exhaustive()
    }
}

impl GroupInner {
    fn is_idle(&self) -> bool {
        self.abandoned.get() == 0 && self.tasks.borrow().is_empty()
    }

    fn wake_when_idle(&self, core: &Core) {
        if self.is_idle() {
            let waiter = self.waiter.borrow_mut().take();
            if let Some(waiter) = waiter {
                waiter.wake(core);
            }
        }
    }

    pub(super) fn insert(&self, task: &TaskRef) {
        let mut tasks = self.tasks.borrow_mut();
        task.group_index.set(tasks.len() as u32);
        tasks.push(task.clone());
    }

    pub(super) fn remove(&self, core: &Core, task: &TaskRef) {
        let removed = {
            let mut tasks = self.tasks.borrow_mut();
            let removed = tasks.swap_remove(task.group_index.get() as usize);
            if let Some(moved) = tasks.get(task.group_index.get() as usize) {
                moved.group_index.set(task.group_index.get());
            }
            removed
        };
        drop(removed);
        self.wake_when_idle(core);
    }
}

/// Counts one abandoned operation of a group until it completes.
pub(crate) struct Abandoned {
    group: Rc<GroupInner>,
}

impl Abandoned {
    /// For the group of the task that is being polled or dropped right now, if it is in one.
    pub(crate) fn of_current_task(core: &Core) -> Option<Self> {
        let header = core.current_task.get()?;
        // SAFETY: the current task is referenced by who runs or cancels it.
        let group = unsafe { header.as_ref() }.group()?;
        group.abandoned.set(group.abandoned.get() + 1);
        Some(Abandoned { group })
    }

    pub(crate) fn completed(self, core: &Core) {
        self.group.abandoned.set(self.group.abandoned.get() - 1);
        self.group.wake_when_idle(core);
    }
}
