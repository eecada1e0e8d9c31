//! What lock-free code stands on: the standard library's, and in `tests/models`, which compiles the same
//! files, loom's, which tries all orders in which threads can see each other's steps.

pub(crate) use std::sync::atomic;
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
pub(crate) use std::thread::yield_now;

pub(crate) use std::hint::spin_loop;

/// Whether looking again and again is a waste: nothing happens meanwhile.
pub(crate) const IS_MODEL: bool = false;

/// [`std::cell::UnsafeCell`] that is told when access to it begins and ends.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// To write, or to read what nobody else can see.
    #[inline]
    pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}
