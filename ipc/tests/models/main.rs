//! Lock-free code under a model of threads: each order in which they can see each other's steps.
//!
//! The files are those of the crate, over loom's atomics instead of the standard library's.

#![expect(dead_code, reason = "files of a crate as parts of a test")]

#[path = "../../src/queue.rs"]
mod queue;
mod queues;
#[path = "../../src/waiters.rs"]
mod waiters;

/// What [`crate::queue`] knows of other processes: there are none.
mod link {
    pub(crate) mod channel {
        use std::marker::PhantomData;

        pub(crate) struct RemoteEnds<T>(PhantomData<T>);

        impl<T> Default for RemoteEnds<T> {
            fn default() -> Self {
                Self(PhantomData)
            }
        }
    }
}

/// As `src/sync.rs`.
mod sync {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::{Arc, Mutex, MutexGuard, atomic};
    pub(crate) use loom::thread::yield_now;

    pub(crate) const IS_MODEL: bool = true;
}

/// A waker that lets a thread of a model sleep.
mod sleep {
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};

    use loom::sync::Notify;

    struct Bell(Notify);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.notify();
        }
    }

    /// Polls until it is ready, and sleeps in between: who is not woken up sleeps for ever, which the model
    /// notices.
    pub(crate) fn until<R>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<R>) -> R {
        let bell = Arc::new(Bell(Notify::new()));
        let waker = Waker::from(Arc::clone(&bell));
        loop {
            if let Poll::Ready(result) = poll(&mut Context::from_waker(&waker)) {
                return result;
            }
            bell.0.wait();
            loom::thread::yield_now();
        }
    }
}

/// Tries all orders with at most so many changes of threads that nothing forced.
fn all_orders(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}
