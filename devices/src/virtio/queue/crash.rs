//! Places where a process may die, or others may look, so that tests and simulations can have it so at
//! each of them.

/// Before each store to memory that outlives the process.
#[inline]
pub(super) fn crash_point() {
    #[cfg(test)]
    fuse::burn();
    crate::simulation::point();
}

/// In tests a process dies by unwinding: what it holds is dropped, which touches no shared memory.
#[cfg(test)]
pub(super) mod fuse {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    /// What unwinds a dead process.
    struct Death;

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    pub(super) fn burn() {
        match LEFT.get() {
            None => {}
            Some(0) => {
                LEFT.set(None);
                // Unlike a panic, this says nothing on its way.
                resume_unwind(Box::new(Death));
            }
            Some(left) => LEFT.set(Some(left - 1)),
        }
    }

    /// How long a process lives.
    #[derive(Debug)]
    pub(in super::super) struct Fuse {
        left: Option<u32>,
    }

    impl Fuse {
        /// It dies after so many stores, or never.
        pub(in super::super) fn new(stores: Option<u32>) -> Self {
            Self { left: stores }
        }

        /// Run a part of the process. None if it died.
        pub(in super::super) fn run<T>(&mut self, part: impl FnOnce() -> T) -> Option<T> {
            LEFT.set(self.left);
            let result = catch_unwind(AssertUnwindSafe(part));
            self.left = LEFT.take();
            match result {
                Ok(result) => Some(result),
                Err(death) if death.is::<Death>() => None,
                Err(panic) => resume_unwind(panic),
            }
        }
    }
}
