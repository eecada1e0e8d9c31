//! A task's allocation: its head and, behind it, the future or its output.

use std::cell::UnsafeCell;
use std::future::Future;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use super::header::{Header, VTable};
use super::{pool, waker};
use crate::core::Core;
use crate::remote::Shared;

enum Stage<F: Future> {
    Running(F),
    Finished(F::Output),
    Empty,
}

/// `header` comes first, so a pointer to the cell is one to the head.
#[repr(C)]
pub(super) struct TaskCell<F: Future> {
    header: Header,
    stage: UnsafeCell<Stage<F>>,
}

impl<F: Future + 'static> TaskCell<F> {
    const VTABLE: VTable = VTable {
        poll: Self::poll,
        clear: Self::clear,
        take_output: Self::take_output,
        free: Self::free,
    };

    /// A new task with one local reference.
    pub(super) fn allocate(shared: *const Shared, future: F) -> NonNull<Header> {
        let cell = pool::allocate::<Self>();
        let header = Header::new(&Self::VTABLE, shared, 1);
        // SAFETY: the memory is for a cell, and nobody else has it yet.
        unsafe { cell.write(TaskCell { header, stage: UnsafeCell::new(Stage::Running(future)) }) };
        cell.cast()
    }

    /// # Safety
    ///
    /// `header` is the head of a `TaskCell<F>`.
    unsafe fn stage(header: NonNull<Header>) -> *mut Stage<F> {
        // SAFETY: by the contract; no reference to the cell as a whole is made.
        unsafe { UnsafeCell::raw_get(&raw const (*header.cast::<Self>().as_ptr()).stage) }
    }

    unsafe fn poll(header: NonNull<Header>, core: &Core) -> bool {
        // SAFETY: the vtable is that of this type.
        let stage = unsafe { Self::stage(header) };
        // SAFETY: whoever calls made sure that nobody else uses the stage.
        let Stage::Running(future) = (unsafe { &mut *stage }) else {
            return true;
        };
        // SAFETY: the future stays in this allocation until it is dropped in place.
        let future = unsafe { Pin::new_unchecked(future) };
        // SAFETY: the caller's reference outlives the poll.
        let waker = unsafe { waker::borrowed(header) };
        core.count_poll();
        match future.poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => false,
            Poll::Ready(output) => {
                // SAFETY: as above. The future is dropped in place by the assignment.
                unsafe { *stage = Stage::Finished(output) };
                true
            }
        }
    }

    unsafe fn clear(header: NonNull<Header>) {
        // SAFETY: the vtable is that of this type, and nobody else uses the stage. The value is
        // dropped in place, as the future is pinned.
        unsafe { *Self::stage(header) = Stage::Empty };
    }

    unsafe fn take_output(header: NonNull<Header>, place: NonNull<()>) {
        // SAFETY: the vtable is that of this type, and nobody else uses the stage. Only an output
        // is moved, never the pinned future.
        let stage = unsafe { &mut *Self::stage(header) };
        if matches!(stage, Stage::Finished(_))
            && let Stage::Finished(output) = std::mem::replace(stage, Stage::Empty)
        {
            // SAFETY: the caller gives the address of an `Option` of the output.
            unsafe { *place.cast::<Option<F::Output>>().as_ptr() = Some(output) };
        }
    }

    unsafe fn free(header: NonNull<Header>) {
        let cell = header.cast::<Self>();
        // SAFETY: `allocate` made it, and this is its last use.
        unsafe {
            cell.drop_in_place();
            pool::free(cell);
        }
    }
}

/// The head that stands for the future of `block_on`, which lives on the caller's stack.
#[repr(transparent)]
pub(crate) struct MainCell {
    header: Header,
}

impl MainCell {
    const VTABLE: VTable = VTable {
        poll: Self::poll,
        clear: Self::nothing,
        take_output: Self::no_output,
        free: Self::free,
    };

    /// With one local reference.
    pub(crate) fn allocate(shared: *const Shared) -> NonNull<Header> {
        let cell = Box::new(MainCell { header: Header::new(&Self::VTABLE, shared, 1) });
        // SAFETY: a box is not null.
        unsafe { NonNull::new_unchecked(Box::into_raw(cell)) }.cast()
    }

    unsafe fn poll(_header: NonNull<Header>, core: &Core) -> bool {
        core.main_woken.set(true);
        false
    }

    unsafe fn nothing(_header: NonNull<Header>) {}

    unsafe fn no_output(_header: NonNull<Header>, _place: NonNull<()>) {}

    unsafe fn free(header: NonNull<Header>) {
        // SAFETY: this is the pointer that `allocate` made, and its last use.
        drop(unsafe { Box::from_raw(header.cast::<Self>().as_ptr()) });
    }
}
