//! Threads that help a back end: each has an executor of its own, and does what the back end gives it.
//!
//! ```text
//!   who starts back ends:  Helper::pair() ──┬── Helper ──────► BackendContext ──► the back end
//!                                           └── HelperDuty ──► a thread: executor.block_on(job)...
//! ```
//!
//! A back end cannot make threads: its sandbox forbids that, and it is not its business where they run. So
//! whoever starts it makes them, with all that its own thread has. A helper lives as long as somebody can
//! give it something to do, and does one thing after the other.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc;

use executor::Executor;

type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// The helper's thread is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a thread that helps is gone")]
pub struct HelperGone;

/// A thread that does what it is given. Clones give to the same one.
#[derive(Debug, Clone)]
pub struct Helper {
    jobs: mpsc::Sender<Job>,
}

/// What a helper's thread does.
#[derive(Debug)]
pub struct HelperDuty {
    jobs: mpsc::Receiver<Job>,
}

impl Helper {
    /// A helper, and what its thread is to do.
    pub fn pair() -> (Self, HelperDuty) {
        let (sender, jobs) = mpsc::channel();
        (Self { jobs: sender }, HelperDuty { jobs })
    }

    /// Has it run what `job` makes, on its executor, when it has nothing else to do any more.
    pub fn give<F: Future<Output = ()> + 'static>(
        &self,
        job: impl FnOnce() -> F + Send + 'static,
    ) -> Result<(), HelperGone> {
        let job = Box::new(|| -> Pin<Box<dyn Future<Output = ()>>> { Box::pin(job()) });
        self.jobs.send(job).map_err(|_| HelperGone)
    }
}

impl HelperDuty {
    /// Does what there is to do on this thread, until nobody can give it anything more.
    pub fn work(self, executor: &mut Executor) {
        while let Ok(job) = self.jobs.recv() {
            executor.block_on(async { job().await });
        }
    }
}

#[cfg(test)]
mod tests {
    use executor::Config;

    use super::*;

    #[test]
    fn a_helper_does_one_thing_after_the_other_until_nobody_has_any() {
        let (helper, duty) = Helper::pair();
        let thread = std::thread::spawn(|| {
            duty.work(&mut Executor::new(&Config::default()).unwrap());
        });
        let (sender, done) = mpsc::channel();
        for number in 0..3 {
            let sender = sender.clone();
            let job = move || async move {
                executor::yield_now().await;
                sender.send((number, std::thread::current().id())).unwrap();
            };
            helper.give(job).unwrap();
        }
        drop((helper, sender));
        let done = done.iter().collect::<Vec<_>>();
        assert_eq!(done.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(done.iter().all(|(_, place)| *place == thread.thread().id()));
        thread.join().unwrap();
    }

    #[test]
    fn who_has_gone_takes_nothing() {
        let (helper, duty) = Helper::pair();
        drop(duty);
        assert_eq!(helper.give(|| async {}), Err(HelperGone));
    }
}
