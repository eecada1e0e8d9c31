//! Wakers: the standard one, which may go to any thread, and the cheap one inside the executor.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::header::{Header, State, TaskRef};
use crate::core::{self, Core};
use crate::remote::Shared;

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

/// A `Waker` of a task that is borrowed for one poll: it counts nothing.
///
/// # Safety
///
/// The task outlives the result.
pub(crate) unsafe fn borrowed(header: NonNull<Header>) -> ManuallyDrop<Waker> {
    // SAFETY: the functions of `VTABLE` take exactly such a pointer.
    ManuallyDrop::new(unsafe { Waker::new(header.as_ptr().cast_const().cast(), &VTABLE) })
}

fn header_of(data: *const ()) -> NonNull<Header> {
    // SAFETY: every waker with `VTABLE` was made from a `NonNull<Header>`.
    unsafe { NonNull::new_unchecked(data.cast_mut().cast()) }
}

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: the waker that is cloned keeps the header alive.
    unsafe { header_of(data).as_ref() }.retain();
    RawWaker::new(data, &VTABLE)
}

unsafe fn wake(data: *const ()) {
    // SAFETY: the waker's own reference lasts until it is released here.
    unsafe {
        wake_by_ref(data);
        drop_waker(data);
    }
}

unsafe fn wake_by_ref(data: *const ()) {
    let header = header_of(data);
    // SAFETY: the waker keeps the header alive.
    let head = unsafe { header.as_ref() };
    core::with_current(|current| match current {
        // `shared` lives as long as any waker does, so equal addresses mean the same executor.
        Some(core) if core.shared_ptr() == head.shared => core.schedule(header),
        // SAFETY: the waker keeps the header alive, and the header keeps `shared` alive.
        _ => unsafe { wake_remote(header) },
    });
}

/// Hands the task to its executor from outside its loop.
unsafe fn wake_remote(header: NonNull<Header>) {
    // SAFETY: by the caller.
    let head = unsafe { header.as_ref() };
    if head.remote_queued.swap(true, Ordering::AcqRel) {
        // Somebody else queued it, and it has not been polled since.
        return;
    }
    head.retain();
    // SAFETY: alive while the waker is. The list takes the reference over.
    unsafe { Shared::push_woken(head.shared, header) };
}

unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the waker's reference ends here.
    unsafe { Header::release(header_of(data)) };
}

/// A waker that stays inside the executor: without atomics when it is one of our own tasks.
pub(crate) enum LocalWaker {
    Task(TaskRef),
    Foreign(Waker),
}

impl LocalWaker {
    pub(crate) fn new(waker: &Waker, core: &Core) -> Self {
        if std::ptr::eq(waker.vtable(), &raw const VTABLE) {
            let header = header_of(waker.data());
            // SAFETY: the waker keeps the header alive.
            let head = unsafe { header.as_ref() };
            // A task that is done may have no local reference left to share.
            if head.shared == core.shared_ptr() && head.state.get() != State::Done {
                // SAFETY: not done, so the list of live tasks has a reference, and `core` is on
                // this thread.
                return LocalWaker::Task(unsafe { TaskRef::from_borrowed(header) });
            }
        }
        LocalWaker::Foreign(waker.clone())
    }

    fn wakes_same(&self, waker: &Waker) -> bool {
        match self {
            LocalWaker::Task(task) => {
                std::ptr::eq(waker.data(), task.as_ptr().as_ptr().cast_const().cast())
            }
            LocalWaker::Foreign(own) => own.will_wake(waker),
        }
    }

    /// Puts `waker` into `place` unless what is there already wakes the same task. What was
    /// there is returned, to be dropped when nothing is borrowed: it may run foreign code.
    pub(crate) fn store(
        place: &mut Option<LocalWaker>,
        waker: &Waker,
        core: &Core,
    ) -> Option<LocalWaker> {
        match place {
            Some(present) if present.wakes_same(waker) => None,
            _ => place.replace(LocalWaker::new(waker, core)),
        }
    }

    pub(crate) fn wake(self, core: &Core) {
        match self {
            LocalWaker::Task(task) => core.schedule(task.as_ptr()),
            LocalWaker::Foreign(waker) => waker.wake(),
        }
    }
}
