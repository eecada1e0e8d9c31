//! The head of a task: reference counts, state, and the links that put it into lists.
//!
//! ```text
//!   ┌────────────── one allocation ──────────────┐
//!   │ Header                      │ future or    │
//!   │ refs ── shared with wakers  │ its output   │
//!   │ local_refs, state, links    │              │
//!   └─────────────────────────────────────────────┘
//!
//!            poll             Ready                 last local reference
//!     Idle ────────▶ Polling ───────▶ Done ─────────▶ output dropped, freed when
//!      ▲               │ Pending      ▲              no `Waker` is left either
//!      ├───────────────┘              │
//!      └───────────▶ Dropping ────────┘
//!        cancel
//! ```
//!
//! There are two reference counts. `local_refs` is a plain number for everything on the owner's
//! thread: the list of live tasks, the ready queue, the handle, the wakers inside operations. All
//! of them together hold one of `refs`; each `std::task::Waker` holds one more. So a task that
//! nobody clones a `Waker` of never touches an atomic.
//!
//! Fields in `Cell`s belong to the owner's thread. A `Waker` on another thread touches only
//! `refs`, `remote_*` and what never changes.

use std::cell::{Cell, UnsafeCell};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering, fence};

use super::group::GroupInner;
use super::waker::LocalWaker;
use crate::core::Core;
use crate::remote::Shared;

/// What differs between tasks of different futures.
pub(crate) struct VTable {
    /// Polls the future. True when it is ready; its output is stored then.
    pub(crate) poll: unsafe fn(NonNull<Header>, &Core) -> bool,
    /// Drops the future or the output, whichever is there.
    pub(crate) clear: unsafe fn(NonNull<Header>),
    /// Moves the output to the address given (an `Option<T>`), if there is one.
    pub(crate) take_output: unsafe fn(NonNull<Header>, NonNull<()>),
    /// Frees the allocation.
    pub(crate) free: unsafe fn(NonNull<Header>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    Polling,
    /// To be cancelled as soon as the poll that is under way returns.
    PollingCancelled,
    /// Its future is being dropped.
    Dropping,
    Done,
}

pub(crate) struct Header {
    refs: AtomicU32,
    /// Link of the list of tasks woken by other threads; belongs to who set `remote_queued`.
    pub(crate) remote_next: AtomicPtr<Header>,
    pub(crate) remote_queued: AtomicBool,
    /// The last `Waker` also releases one reference to `shared`.
    holds_shared: Cell<bool>,
    pub(crate) shared: *const Shared,
    pub(crate) vtable: &'static VTable,

    pub(super) local_refs: Cell<u32>,
    pub(super) state: Cell<State>,
    /// In the ready queue.
    pub(super) queued: Cell<bool>,
    /// Its handle still exists: the output is kept for it.
    pub(super) has_handle: Cell<bool>,
    pub(super) ready_next: Cell<Option<NonNull<Header>>>,
    /// Its place in the list of live tasks.
    pub(super) live_index: Cell<u32>,
    pub(super) joiner: UnsafeCell<Option<LocalWaker>>,
    pub(super) group: Cell<Option<Rc<GroupInner>>>,
    /// Its place in the group's list.
    pub(super) group_index: Cell<u32>,
}

impl Header {
    pub(crate) fn new(vtable: &'static VTable, shared: *const Shared, local_refs: u32) -> Self {
        Header {
            refs: AtomicU32::new(1),
            remote_next: AtomicPtr::new(std::ptr::null_mut()),
            remote_queued: AtomicBool::new(false),
            holds_shared: Cell::new(false),
            shared,
            vtable,
            local_refs: Cell::new(local_refs),
            state: Cell::new(State::Idle),
            queued: Cell::new(false),
            has_handle: Cell::new(true),
            ready_next: Cell::new(None),
            live_index: Cell::new(0),
            joiner: UnsafeCell::new(None),
            group: Cell::new(None),
            group_index: Cell::new(0),
        }
    }

    pub(super) fn group(&self) -> Option<Rc<GroupInner>> {
        let group = self.group.take();
        self.group.set(group.clone());
        group
    }

    /// Nobody polls it any more: for the head that stands for `block_on`.
    pub(crate) fn retire(&self) {
        self.state.set(State::Done);
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state.get() == State::Done
    }

    /// Takes a reference for a `Waker`. Any thread that holds one may.
    pub(crate) fn retain(&self) {
        let before = self.refs.fetch_add(1, Ordering::Relaxed);
        // A program that leaks two thousand million wakers must not wrap the count.
        if before > u32::MAX / 2 {
            std::process::abort();
        }
    }

    /// Gives the reference of a `Waker` back.
    ///
    /// # Safety
    ///
    /// The caller holds one and does not use `header` afterwards.
    pub(crate) unsafe fn release(header: NonNull<Header>) {
        // SAFETY: the caller's reference keeps it alive up to the decrement.
        if unsafe { header.as_ref() }.refs.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            // SAFETY: that was the last reference; the owner cleared the future before it
            // released its own.
            unsafe { Self::free(header) };
        }
    }

    /// # Safety
    ///
    /// No reference is left, and the task was cleared.
    unsafe fn free(header: NonNull<Header>) {
        let (vtable, shared) = {
            // SAFETY: still allocated.
            let head = unsafe { header.as_ref() };
            (head.vtable, head.holds_shared.get().then_some(head.shared))
        };
        // SAFETY: the function belongs to this allocation, and nothing refers to it any more.
        unsafe { (vtable.free)(header) };
        if let Some(shared) = shared {
            // SAFETY: `release_local` took this count with `increment_strong_count`.
            drop(unsafe { Arc::from_raw(shared) });
        }
    }

    /// Gives a local reference back; with the last one the task's share of `refs` goes.
    ///
    /// # Safety
    ///
    /// The caller is on the owner's thread, holds a local reference, and does not use `header`
    /// afterwards.
    pub(super) unsafe fn release_local(header: NonNull<Header>) {
        // SAFETY: the caller's reference keeps it alive.
        let head = unsafe { header.as_ref() };
        let left = head.local_refs.get() - 1;
        head.local_refs.set(left);
        if left > 0 {
            return;
        }
        // The list of live tasks holds a reference until a task is done, so it is done.
        // SAFETY: nobody polls it or takes its output any more.
        unsafe { (head.vtable.clear)(header) };
        if head.refs.load(Ordering::Acquire) == 1 {
            // SAFETY: only this reference exists, and only its holder could make more.
            unsafe { Self::free(header) };
        } else {
            // Wakers outlive the task and perhaps the executor; they need `shared` to see that.
            // SAFETY: the executor holds a count as long as it has tasks.
            unsafe { Arc::increment_strong_count(head.shared) };
            head.holds_shared.set(true);
            // SAFETY: this is the reference that all local ones shared.
            unsafe { Self::release(header) };
        }
    }
}

/// A local reference to a task.
pub(crate) struct TaskRef(NonNull<Header>);

impl TaskRef {
    /// Takes over a local reference that was counted already.
    ///
    /// # Safety
    ///
    /// It was, and the caller is on the owner's thread.
    pub(crate) unsafe fn from_counted(header: NonNull<Header>) -> Self {
        TaskRef(header)
    }

    /// Counts one more local reference.
    ///
    /// # Safety
    ///
    /// `header` has at least one, and the caller is on the owner's thread.
    pub(crate) unsafe fn from_borrowed(header: NonNull<Header>) -> Self {
        // SAFETY: alive by its other reference.
        let head = unsafe { header.as_ref() };
        head.local_refs.set(head.local_refs.get() + 1);
        TaskRef(header)
    }

    /// Gives up the reference without counting down.
    pub(crate) fn into_counted(self) -> NonNull<Header> {
        let header = self.0;
        std::mem::forget(self);
        header
    }

    pub(crate) fn as_ptr(&self) -> NonNull<Header> {
        self.0
    }
}

impl Clone for TaskRef {
    fn clone(&self) -> Self {
        // SAFETY: `self` is a reference on this thread.
        unsafe { Self::from_borrowed(self.0) }
    }
}

impl Drop for TaskRef {
    fn drop(&mut self) {
        // SAFETY: the reference is ours, and a `TaskRef` never leaves its thread.
        unsafe { Header::release_local(self.0) };
    }
}

impl std::ops::Deref for TaskRef {
    type Target = Header;
    fn deref(&self) -> &Header {
        // SAFETY: alive by our reference.
        unsafe { self.0.as_ref() }
    }
}
