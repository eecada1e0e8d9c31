//! What other threads may touch: two lock-free lists and the bell that ends a sleep.
//!
//! ```text
//!            before sleeping                 a waker pushes, then swaps in Notified
//!   Running ────────────────▶ Sleeping ──────────────────────────▶ Notified
//!      ▲                        │ woke by itself                      │ and rings
//!      └────────────────────────┴─────────────────────────────────────┘
//!                the owner swaps in Running, then drains the lists
//! ```
//!
//! Pushing comes before the swap on one side and draining after it on the other, all sequentially
//! consistent: whoever finds `Notified` may leave the rest to the owner, and nothing is lost.

use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use crate::core::{self, Core};
use crate::task::header::Header;

const RUNNING: u8 = 0;
const SLEEPING: u8 = 1;
const NOTIFIED: u8 = 2;

/// The part of an executor that is shared between threads.
pub(crate) struct Shared {
    /// Woken tasks, last one first, linked by `Header::remote_next`. Each has a reference.
    woken: AtomicPtr<Header>,
    /// Closures to run, last one first.
    jobs: AtomicPtr<Job>,
    state: AtomicU8,
    /// An eventfd that the driver watches. Never drained: each write is an event.
    doorbell: OwnedFd,
    /// The ring of a driver that can be sent ring messages; a duplicate, so the number cannot come
    /// to mean another file while messages are under way.
    ring: OnceLock<OwnedFd>,
}

struct Job {
    next: *mut Job,
    run: Box<dyn FnOnce() + Send>,
}

/// What the heads of the lists hold once the executor has ended. Only ever compared.
fn closed<T>() -> *mut T {
    ptr::without_provenance_mut(usize::MAX)
}

impl Shared {
    pub(crate) fn new(doorbell: OwnedFd) -> Self {
        Shared {
            woken: AtomicPtr::new(ptr::null_mut()),
            jobs: AtomicPtr::new(ptr::null_mut()),
            state: AtomicU8::new(RUNNING),
            doorbell,
            ring: OnceLock::new(),
        }
    }

    pub(crate) fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    pub(crate) fn set_ring(&self, ring: OwnedFd) {
        // The driver calls this once.
        let _ = self.ring.set(ring);
    }

    pub(crate) fn ring(&self) -> Option<BorrowedFd<'_>> {
        self.ring.get().map(AsFd::as_fd)
    }

    /// Queues a task and wakes its executor.
    ///
    /// # Safety
    ///
    /// `this` points into an `Arc` that lives until this returns. The caller set `remote_queued`
    /// and gives up one reference to `header`.
    pub(crate) unsafe fn push_woken(this: *const Shared, header: NonNull<Header>) {
        // SAFETY: by the contract.
        let shared = unsafe { &*this };
        let mut head = shared.woken.load(Ordering::Relaxed);
        loop {
            if head == closed() {
                // SAFETY: the reference that the caller gave up.
                unsafe { Header::release(header) };
                return;
            }
            // SAFETY: the reference is ours until the exchange succeeds.
            unsafe { header.as_ref() }.remote_next.store(head, Ordering::Relaxed);
            match shared.woken.compare_exchange_weak(
                head,
                header.as_ptr(),
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        // SAFETY: by the contract.
        unsafe { Self::notify(this) };
    }

    fn push_job(self: &Arc<Self>, run: Box<dyn FnOnce() + Send>) {
        let job = Box::into_raw(Box::new(Job { next: ptr::null_mut(), run }));
        let mut head = self.jobs.load(Ordering::Relaxed);
        loop {
            if head == closed() {
                // SAFETY: not published, so still ours alone.
                drop(unsafe { Box::from_raw(job) });
                return;
            }
            // SAFETY: as above.
            unsafe { (*job).next = head };
            match self.jobs.compare_exchange_weak(head, job, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        // SAFETY: `self` is an `Arc`.
        unsafe { Self::notify(Arc::as_ptr(self)) };
    }

    /// Ends the owner's sleep, or makes its next one end at once.
    ///
    /// # Safety
    ///
    /// `this` points into an `Arc` that lives until this returns.
    unsafe fn notify(this: *const Shared) {
        // SAFETY: by the contract.
        let shared = unsafe { &*this };
        if shared.state.load(Ordering::SeqCst) == NOTIFIED
            || shared.state.swap(NOTIFIED, Ordering::SeqCst) != SLEEPING
        {
            return;
        }
        let sent = shared.ring.get().is_some()
            && core::with_current(|current| {
                // SAFETY: by the contract.
                current.is_some_and(|core| core.message_ring(|| unsafe { arc_from(this) }))
            });
        if !sent {
            shared.ring_doorbell();
        }
    }

    /// Wakes the owner by a system call.
    pub(crate) fn ring_doorbell(&self) {
        // The counter cannot overflow within the life of a machine; EAGAIN would mean that the
        // bell rings already.
        let _ = rustix::io::write(&self.doorbell, &1u64.to_ne_bytes());
    }

    /// The owner wants to sleep. False when somebody has queued something meanwhile.
    pub(crate) fn prepare_to_sleep(&self) -> bool {
        self.state.compare_exchange(RUNNING, SLEEPING, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    pub(crate) fn is_notified(&self) -> bool {
        self.state.load(Ordering::Relaxed) == NOTIFIED
    }

    /// The owner is awake and takes everything that was queued.
    pub(crate) fn drain(&self, core: &Core) {
        // When running and not notified, nothing can be in the lists that is not followed by a
        // notification.
        if self.state.load(Ordering::Relaxed) == RUNNING {
            return;
        }
        self.state.swap(RUNNING, Ordering::SeqCst);
        self.take_woken(ptr::null_mut(), |header| core.schedule(header));
        self.take_jobs(ptr::null_mut(), |run| run());
    }

    /// The executor ends: what is queued is dropped, and so is everything pushed later.
    pub(crate) fn close(&self) {
        self.take_woken(closed(), |_| {});
        self.take_jobs(closed(), drop);
    }

    fn take_woken(&self, replacement: *mut Header, mut each: impl FnMut(NonNull<Header>)) {
        if replacement.is_null() && self.woken.load(Ordering::SeqCst).is_null() {
            return;
        }
        let mut list = self.woken.swap(replacement, Ordering::SeqCst);
        let mut in_order: *mut Header = ptr::null_mut();
        while list != closed()
            && let Some(header) = NonNull::new(list)
        {
            // SAFETY: in the list, so it has a reference, and its link is ours.
            let head = unsafe { header.as_ref() };
            list = head.remote_next.swap(in_order, Ordering::Relaxed);
            in_order = header.as_ptr();
        }
        while let Some(header) = NonNull::new(in_order) {
            // SAFETY: as above.
            let head = unsafe { header.as_ref() };
            in_order = head.remote_next.load(Ordering::Relaxed);
            // From here on another thread may queue it again, links included.
            head.remote_queued.swap(false, Ordering::AcqRel);
            each(header);
            // SAFETY: the list's reference, not used afterwards.
            unsafe { Header::release(header) };
        }
    }

    fn take_jobs(&self, replacement: *mut Job, mut each: impl FnMut(Box<dyn FnOnce() + Send>)) {
        if replacement.is_null() && self.jobs.load(Ordering::SeqCst).is_null() {
            return;
        }
        let mut list = self.jobs.swap(replacement, Ordering::SeqCst);
        let mut in_order: *mut Job = ptr::null_mut();
        while list != closed() && !list.is_null() {
            // SAFETY: taken off the list, so ours alone.
            let job = unsafe { &mut *list };
            let next = std::mem::replace(&mut job.next, in_order);
            in_order = list;
            list = next;
        }
        while !in_order.is_null() {
            // SAFETY: as above; made by `Box::into_raw`.
            let job = unsafe { Box::from_raw(in_order) };
            in_order = job.next;
            each(job.run);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The executor closed the lists, unless it was never finished.
        self.close();
    }
}

/// # Safety
///
/// `this` points into an `Arc` that lives until this returns.
unsafe fn arc_from(this: *const Shared) -> Arc<Shared> {
    // SAFETY: by the contract.
    unsafe {
        Arc::increment_strong_count(this);
        Arc::from_raw(this)
    }
}

/// A handle to an executor for any thread.
#[derive(Clone)]
pub struct Remote {
    shared: Arc<Shared>,
}

impl Remote {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Remote { shared }
    }

    /// Makes the executor go once through its loop, also when it sleeps.
    pub fn wake(&self) {
        // SAFETY: `self` holds the `Arc`.
        unsafe { Shared::notify(Arc::as_ptr(&self.shared)) };
    }

    /// Spawns a task there. When the executor has ended already, `make` is dropped.
    pub fn spawn<M, F>(&self, make: M)
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: 'static,
    {
        // `make` runs in the task, so that a panic in it is one of the task.
        let run = move || crate::task::spawn(async move { make().await }).detach();
        self.shared.push_job(Box::new(run));
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}
