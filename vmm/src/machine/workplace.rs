//! Where a back end runs that has no process of its own: a thread, and those that help it.

use std::future::Future;
use std::io;

use devices::virtio::helpers::{Helper, HelperDuty};
use devices::virtio::parts::{DeviceParts, ExecutorNeeds, Parts};
use executor::{Config, Executor};

use crate::affinity;

/// What a back end's threads are like.
#[derive(Debug, Clone)]
pub(super) struct Workplace {
    cpus: Vec<u16>,
    threads: u16,
    executor: ExecutorNeeds,
}

impl Workplace {
    /// For such a device on such processors, which are any if there is none.
    pub(super) fn of(parts: &DeviceParts, cpus: Vec<u16>) -> Self {
        Self { cpus, threads: parts.threads(), executor: parts.executor_needs() }
    }

    /// Whether any thread with any executor does.
    pub(super) fn is_plain(&self) -> bool {
        self.cpus.is_empty() && self.threads == 1 && self.executor == ExecutorNeeds::default()
    }

    /// Does some work on this thread, with helpers on others that end with it. An error is a sentence for the log.
    pub(super) fn run<F: Future>(
        &self,
        work: impl FnOnce(Vec<Helper>) -> F,
    ) -> Result<F::Output, String> {
        // A file server has a umask and a working directory of its own.
        crate::sandbox::leave_shared_places().map_err(|error| error.to_string())?;
        let mut executor = self.settle(0)?;
        let mut helpers = Vec::new();
        let mut threads = Vec::new();
        for thread in 1..self.threads {
            let (helper, duty) = Helper::pair();
            let started = self.start(thread, duty);
            threads.push(started.map_err(|error| format!("no thread to help: {error}"))?);
            helpers.push(helper);
        }
        let output = executor.block_on(work(helpers));
        drop(executor);
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a thread that helps a back end panicked");
            }
        }
        Ok(output)
    }

    fn start(&self, thread: u16, duty: HelperDuty) -> io::Result<std::thread::JoinHandle<()>> {
        let place = self.clone();
        let name = std::thread::current().name().unwrap_or("device").to_owned();
        let work = move || match place.settle(thread) {
            Ok(mut executor) => duty.work(&mut executor),
            // Who gives it something to do is told that it is gone.
            Err(reason) => log::error!("a back end cannot be helped: {reason}"),
        };
        std::thread::Builder::new().name(format!("{name}-{thread}")).spawn(work)
    }

    fn settle(&self, thread: u16) -> Result<Executor, String> {
        let cpus = affinity::of_thread(&self.cpus, thread, self.threads);
        if !cpus.is_empty() {
            executor::pin_thread(cpus.iter().copied())
                .map_err(|error| format!("cannot run on its CPUs: {error}"))?;
        }
        // The ring belongs to the thread that uses it.
        Executor::new(&self.executor.of_executor(Config::default()))
            .map_err(|error| error.to_string())
    }
}
