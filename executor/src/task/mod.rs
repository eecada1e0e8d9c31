//! Tasks: a future and its head in one allocation.

pub(crate) mod cell;
pub(crate) mod group;
pub(crate) mod header;
mod pool;
pub(crate) mod queue;
pub(crate) mod waker;

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr::NonNull;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::core::{self, Core};
use cell::TaskCell;
use header::{State, TaskRef};
use waker::LocalWaker;

/// The handle of a spawned task; a future of its output. Dropping it detaches the task.
///
/// A panic inside a task unwinds out of [`Executor::block_on`](crate::Executor::block_on).
#[must_use = "dropping the handle detaches the task"]
pub struct Task<T> {
    inner: TaskRef,
    core: Rc<Core>,
    output: PhantomData<T>,
}

/// Spawns a task onto the executor that runs on this thread.
///
/// # Panics
///
/// When no executor runs on this thread.
pub fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let core = core::current().expect("spawn needs an executor that runs on this thread");
    Task { inner: spawn_on(&core, future, None), core, output: PhantomData }
}

/// Makes a task, alive and ready. The reference that is returned is the one of the handle.
fn spawn_on<F>(core: &Core, future: F, group: Option<Rc<group::GroupInner>>) -> TaskRef
where
    F: Future + 'static,
    F::Output: 'static,
{
    let header = TaskCell::allocate(core.shared_ptr(), future);
    // SAFETY: a new task comes with one counted reference.
    let task = unsafe { TaskRef::from_counted(header) };
    if let Some(group) = group {
        group.insert(&task);
        task.group.set(Some(group));
    }
    core.live.insert(task.clone());
    core.schedule(header);
    task
}

impl<T> Task<T> {
    /// Drops the task's future now, or when it is being polled, after that poll. Its operations
    /// are cancelled.
    pub fn cancel(self) {
        cancel(&self.core, &self.inner);
    }

    /// Lets the task run on by itself.
    pub fn detach(self) {}

    /// Whether the output is there.
    pub fn is_finished(&self) -> bool {
        self.inner.state.get() == State::Done
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let task = &self.inner;
        if task.state.get() == State::Done {
            let mut output: Option<T> = None;
            // SAFETY: the handle's type parameter is the output of the task's future.
            unsafe { (task.vtable.take_output)(task.as_ptr(), NonNull::from(&mut output).cast()) };
            return Poll::Ready(output.expect(
                "a task was awaited again after its output was taken, or after its executor ended",
            ));
        }
        // SAFETY: only this thread uses the joiner, and the reference ends with the store, before
        // any foreign code runs.
        let joiner = unsafe { &mut *task.joiner.get() };
        drop(LocalWaker::store(joiner, context.waker(), &self.core));
        Poll::Pending
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.inner.has_handle.set(false);
        if self.inner.state.get() == State::Done {
            // Nobody can take the output any more.
            // SAFETY: the task is done, so nobody polls it.
            unsafe { (self.inner.vtable.clear)(self.inner.as_ptr()) };
        }
    }
}

impl<T> std::fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("state", &self.inner.state.get()).finish_non_exhaustive()
    }
}

/// Polls a task that came out of the ready queue.
pub(crate) fn run(core: &Core, task: &TaskRef) {
    if task.state.get() != State::Idle {
        return;
    }
    task.state.set(State::Polling);
    let guard = PollGuard { core, task, previous: core.current_task.replace(Some(task.as_ptr())) };
    // SAFETY: the state says that nobody else polls it and that it is not done.
    let ready = unsafe { (task.vtable.poll)(task.as_ptr(), core) };
    if ready {
        finish(core, task);
    } else if task.state.get() == State::PollingCancelled {
        drop_future(core, task);
    } else {
        task.state.set(State::Idle);
    }
    drop(guard);
}

/// Restores the current task; when the poll panicked, ends the task.
struct PollGuard<'a> {
    core: &'a Core,
    task: &'a TaskRef,
    previous: Option<NonNull<header::Header>>,
}

impl Drop for PollGuard<'_> {
    fn drop(&mut self) {
        if matches!(self.task.state.get(), State::Polling | State::PollingCancelled) {
            drop_future(self.core, self.task);
        }
        self.core.current_task.set(self.previous);
    }
}

/// Ends a task early.
pub(crate) fn cancel(core: &Core, task: &TaskRef) {
    match task.state.get() {
        State::Idle => {
            let previous = core.current_task.replace(Some(task.as_ptr()));
            drop_future(core, task);
            core.current_task.set(previous);
        }
        State::Polling => task.state.set(State::PollingCancelled),
        State::PollingCancelled | State::Dropping | State::Done => {}
    }
}

/// Drops the future of a task and ends the task.
fn drop_future(core: &Core, task: &TaskRef) {
    struct Finish<'a>(&'a Core, &'a TaskRef);
    impl Drop for Finish<'_> {
        fn drop(&mut self) {
            finish(self.0, self.1);
        }
    }

    // From here on nobody polls or clears it, also when the drop runs code that tries to.
    task.state.set(State::Dropping);
    // Also when the drop panics, the task leaves the lists.
    let _finish = Finish(core, task);
    // SAFETY: it is neither polled nor cleared elsewhere: the state was not `Dropping` before.
    unsafe { (task.vtable.clear)(task.as_ptr()) };
}

/// Takes a task that has ended off the lists and tells who waits for it.
fn finish(core: &Core, task: &TaskRef) {
    task.state.set(State::Done);
    if !task.has_handle.get() {
        // SAFETY: the task is done, so nobody polls it.
        unsafe { (task.vtable.clear)(task.as_ptr()) };
    }
    drop(core.live.remove(task));
    if let Some(group) = task.group.take() {
        group.remove(core, task);
    }
    // SAFETY: as in `poll` of the handle.
    let joiner = unsafe { (*task.joiner.get()).take() };
    if let Some(joiner) = joiner {
        joiner.wake(core);
    }
}
