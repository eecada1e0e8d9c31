//! Wakers: the standard one, which may go to any thread, and the cheap one inside the executor.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::header::{Header, TaskRef};
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
///
/// A local reference to a task, which `vtable` then marks with `LOCAL`, or a foreign waker taken
/// apart. By hand rather than an enum, to make an `Option` of it no larger than the two words.
pub(crate) struct LocalWaker {
    data: *const (),
    vtable: &'static RawWakerVTable,
}

/// Never called, only compared.
static LOCAL: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

impl LocalWaker {
    pub(crate) fn new(waker: &Waker, core: &Core) -> Self {
        if std::ptr::eq(waker.vtable(), &raw const VTABLE) {
            let header = header_of(waker.data());
            // SAFETY: the waker keeps the header alive.
            let head = unsafe { header.as_ref() };
            // A task that is done may have no local reference left to share.
            if head.shared == core.shared_ptr() && !head.is_done() {
                // SAFETY: not done, so the list of live tasks has a reference, and `core` is on
                // this thread.
                let task = unsafe { TaskRef::from_borrowed(header) };
                let data = task.into_counted().as_ptr().cast_const().cast();
                return LocalWaker { data, vtable: &LOCAL };
            }
        }
        Self::foreign(waker.clone())
    }

    pub(crate) fn foreign(waker: Waker) -> Self {
        let waker = ManuallyDrop::new(waker);
        LocalWaker { data: waker.data(), vtable: waker.vtable() }
    }

    fn is_task(&self) -> bool {
        std::ptr::eq(self.vtable, &raw const LOCAL)
    }

    /// What it is made of, owned again.
    pub(crate) fn into_parts(self) -> Result<TaskRef, Waker> {
        let parts = ManuallyDrop::new(self);
        if parts.is_task() {
            // SAFETY: `new` left one counted reference here, on this thread.
            Ok(unsafe { TaskRef::from_counted(header_of(parts.data)) })
        } else {
            // SAFETY: these are the parts of the waker that `foreign` was given.
            Err(unsafe { Waker::new(parts.data, parts.vtable) })
        }
    }

    fn wakes_same(&self, waker: &Waker) -> bool {
        // A task's own waker and our reference to it differ in the table.
        self.data == waker.data() && (self.is_task() || std::ptr::eq(self.vtable, waker.vtable()))
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
        match self.into_parts() {
            Ok(task) => core.schedule(task.as_ptr()),
            Err(waker) => waker.wake(),
        }
    }
}

impl Drop for LocalWaker {
    fn drop(&mut self) {
        let LocalWaker { data, vtable } = *self;
        drop(LocalWaker { data, vtable }.into_parts());
    }
}
