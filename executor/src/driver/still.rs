//! A driver for unit tests: no system calls, a clock that stands still until somebody waits, and
//! an order of tasks that comes from a seed. Every operation completes with its own number.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::{Attached, Driver, FileId, Medium, Residence, Target, Wait};
use crate::config::{Config, DriverKind};
use crate::executor::Executor;
use crate::ops::Operation;
use crate::ops::slots::{Completion, Token};
use crate::remote::Shared;
use crate::time::instant::Instant;

pub(crate) struct Still {
    shared: Arc<Shared>,
    elapsed: Duration,
    /// State of the generator that orders tasks; zero keeps them in order.
    random: u64,
    queue: VecDeque<Completion>,
    submitted: i32,
}

impl Still {
    pub(crate) fn executor(seed: u64) -> Executor {
        // Never written to: whoever waits looks at the flag.
        let (_, doorbell) = std::io::pipe().expect("a pipe");
        let shared = Arc::new(Shared::new(doorbell.into()));
        let driver = Still {
            shared: Arc::clone(&shared),
            elapsed: Duration::ZERO,
            random: seed,
            queue: VecDeque::new(),
            submitted: 0,
        };
        Executor::with_driver(shared, Box::new(driver), &Config::default())
    }
}

impl Driver for Still {
    fn kind(&self) -> DriverKind {
        DriverKind::Epoll
    }

    fn has_multishot_poll(&self) -> bool {
        false
    }

    fn attach(&mut self, _fd: BorrowedFd<'_>, _residence: Residence) -> Attached {
        Attached { file: FileId::Plain, medium: Medium::Other }
    }

    fn detach(&mut self, _target: Target) {}

    fn submit(&mut self, token: Token, _target: Target, _operation: Operation) {
        self.submitted += 1;
        self.queue.push_back(Completion::only(token, self.submitted));
    }

    fn cancel(&mut self, _token: Token, _target: Target) {}

    fn signal(&mut self, _target: Target) {}

    fn message_ring(&mut self, _target: &mut dyn FnMut() -> Arc<Shared>) -> bool {
        false
    }

    fn flush(&mut self) {}

    fn turn(&mut self, wait: Wait) {
        if !self.queue.is_empty() {
            return;
        }
        match wait {
            Wait::No => {}
            Wait::For(duration) => self.elapsed += duration,
            Wait::Forever => {
                while !self.shared.is_notified() {
                    std::thread::yield_now();
                }
            }
        }
    }

    fn reap(&mut self, completions: &mut VecDeque<Completion>) {
        completions.append(&mut self.queue);
    }

    fn has_completions(&mut self) -> bool {
        !self.queue.is_empty()
    }

    fn system_calls(&self) -> u64 {
        0
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(0) + self.elapsed
    }

    fn schedules(&self) -> bool {
        self.random != 0
    }

    fn choose(&mut self, ready: usize) -> usize {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % ready as u64) as usize
    }
}
