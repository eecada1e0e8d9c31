//! The queue of tasks that are ready to be polled, and the list of all that are alive. The
//! queue links through the tasks themselves, so it never allocates.

use std::cell::{Cell, RefCell};
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
    tasks: RefCell<Vec<TaskRef>>,
}

impl LiveList {
    pub(crate) fn insert(&self, task: TaskRef) {
        let mut tasks = self.tasks.borrow_mut();
        task.live_index.set(tasks.len() as u32);
        tasks.push(task);
    }

    /// Takes out a task that is in the list.
    pub(crate) fn remove(&self, task: &TaskRef) -> TaskRef {
        let index = task.live_index.get();
        let mut tasks = self.tasks.borrow_mut();
        let removed = tasks.swap_remove(index as usize);
        debug_assert_eq!(removed.as_ptr(), task.as_ptr());
        if let Some(moved) = tasks.get(index as usize) {
            moved.live_index.set(index);
        }
        removed
    }

    pub(crate) fn last(&self) -> Option<TaskRef> {
        self.tasks.borrow().last().cloned()
    }
}
