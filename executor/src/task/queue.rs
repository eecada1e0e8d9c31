//! The queue of tasks that are ready to be polled, and the list of all that are alive. Both link
//! through the task itself, so neither ever allocates.

use std::cell::Cell;
use std::ptr::NonNull;

use super::header::{Header, TaskRef};

/// First in, first out. Holds a local reference to each task.
#[derive(Default)]
pub(crate) struct ReadyQueue {
    head: Cell<Option<NonNull<Header>>>,
    tail: Cell<Option<NonNull<Header>>>,
    len: Cell<usize>,
}

impl ReadyQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.head.get().is_none()
    }

    pub(crate) fn len(&self) -> usize {
        self.len.get()
    }

    /// Adds a task unless it is in the queue already.
    ///
    /// # Safety
    ///
    /// The caller is on the owner's thread, and `header` has a local reference or will not be
    /// freed before this returns.
    pub(crate) unsafe fn push(&self, header: NonNull<Header>) {
        // SAFETY: alive by the contract.
        let head = unsafe { header.as_ref() };
        if head.queued.replace(true) {
            return;
        }
        // SAFETY: by the contract.
        let header = unsafe { TaskRef::from_borrowed(header) }.into_counted();
        head.ready_next.set(None);
        match self.tail.replace(Some(header)) {
            // SAFETY: what is in the queue is alive by the queue's reference.
            Some(last) => unsafe { last.as_ref() }.ready_next.set(Some(header)),
            None => self.head.set(Some(header)),
        }
        self.len.set(self.len.get() + 1);
    }

    pub(crate) fn pop(&self) -> Option<TaskRef> {
        let header = self.head.get()?;
        // SAFETY: the queue's reference keeps it alive, and passes to the caller.
        let task = unsafe { TaskRef::from_counted(header) };
        self.head.set(task.ready_next.take());
        if self.head.get().is_none() {
            self.tail.set(None);
        }
        self.len.set(self.len.get() - 1);
        task.queued.set(false);
        Some(task)
    }

    /// Moves the task at `index` to the front, for drivers that choose the order themselves.
    pub(crate) fn bring_forward(&self, index: usize) {
        for _ in 0..index.min(self.len()) {
            if let Some(task) = self.pop() {
                // SAFETY: `task` is a reference on this thread.
                unsafe { self.push(task.as_ptr()) };
            }
        }
    }
}

/// Every task that has not finished. Holds a local reference to each.
#[derive(Default)]
pub(crate) struct LiveList {
    head: Cell<Option<NonNull<Header>>>,
}

impl LiveList {
    /// Adds a task and takes the reference over.
    pub(crate) fn insert(&self, task: TaskRef) {
        task.live_previous.set(None);
        task.live_next.set(self.head.get());
        if let Some(next) = self.head.get() {
            // SAFETY: in the list, so alive.
            unsafe { next.as_ref() }.live_previous.set(Some(task.as_ptr()));
        }
        self.head.set(Some(task.into_counted()));
    }

    /// Takes a task out that is in the list, and gives the list's reference back.
    ///
    /// # Safety
    ///
    /// It is in this list.
    pub(crate) unsafe fn remove(&self, header: NonNull<Header>) -> TaskRef {
        // SAFETY: in the list, so alive; its reference passes to the caller.
        let task = unsafe { TaskRef::from_counted(header) };
        let next = task.live_next.take();
        let previous = task.live_previous.take();
        if let Some(next) = next {
            // SAFETY: in the list, so alive.
            unsafe { next.as_ref() }.live_previous.set(previous);
        }
        match previous {
            // SAFETY: in the list, so alive.
            Some(previous) => unsafe { previous.as_ref() }.live_next.set(next),
            None => self.head.set(next),
        }
        task
    }

    pub(crate) fn first(&self) -> Option<TaskRef> {
        // SAFETY: in the list, so it has a reference.
        self.head.get().map(|header| unsafe { TaskRef::from_borrowed(header) })
    }
}
