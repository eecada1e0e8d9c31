//! Looking for work before sleeping.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use executor::{Config, DriverChoice, Executor, Fd, Lookout, idle_poller, sleep, yield_now};

#[test]
fn spinning_finds_what_wakers_and_rings_bring() {
    for driver in [DriverChoice::Uring, DriverChoice::Epoll] {
        let idle_spin = Duration::from_micros(200);
        let config = Config { driver, idle_spin, ..Config::default() };
        let mut executor = Executor::new(&config).unwrap();
        executor.block_on(async {
            let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
            let (left, right) = (Fd::new(left).unwrap(), right);
            let thread = thread::spawn(move || {
                use std::io::{Read, Write};
                let mut right = right;
                let mut byte = [0];
                for _ in 0..500 {
                    right.read_exact(&mut byte).unwrap();
                    right.write_all(&byte).unwrap();
                }
            });
            for _ in 0..500 {
                assert_eq!(left.write("x").await.0.unwrap(), 1);
                assert_eq!(left.read(vec![0; 1]).await.0.unwrap(), 1);
            }
            thread.join().unwrap();
            sleep(Duration::from_millis(1)).await;
        });
    }
}

/// Counts what it is asked. It finds a task's work with this look, or with none but before sleeping.
struct Patient {
    patience: Duration,
    looks: Cell<u32>,
    sleeps: Cell<u32>,
    finds_at: Option<u32>,
    flag: Flag,
}

/// A flag that a poller raises and a task waits for.
#[derive(Default)]
struct Flag {
    raised: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Flag {
    fn raise(&self) {
        self.raised.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn taken(&self) {
        poll_fn(|context| {
            self.waker.replace(Some(context.waker().clone()));
            if self.raised.take() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Lookout for Patient {
    fn look(&self) -> bool {
        self.looks.set(self.looks.get() + 1);
        let found = Some(self.looks.get()) == self.finds_at;
        if found {
            self.flag.raise();
        }
        found
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn before_sleep(&self) -> bool {
        self.sleeps.set(self.sleeps.get() + 1);
        self.flag.raise();
        true
    }
}

/// How often a poller looked and prepared a sleep until a task went on, and the visits to the kernel.
fn wait_for(patience: Duration, finds_at: Option<u32>) -> (u32, u32, u64) {
    let mut executor = Executor::new(&Config::default()).unwrap();
    executor.block_on(async {
        // What the executor itself needs is submitted.
        executor::flush();
        let before = executor::stats().unwrap().system_calls;
        let poller = Rc::new(Patient {
            patience,
            looks: Cell::new(0),
            sleeps: Cell::new(0),
            finds_at,
            flag: Flag::default(),
        });
        let _guard = idle_poller(Rc::clone(&poller) as Rc<dyn Lookout>);
        poller.flag.taken().await;
        let visits = executor::stats().unwrap().system_calls - before;
        (poller.looks.get(), poller.sleeps.get(), visits)
    })
}

#[test]
fn patience_finds_work_without_a_visit_to_the_kernel() {
    assert_eq!(wait_for(Duration::from_hours(1), Some(1000)), (1000, 0, 0));
}

#[test]
fn without_patience_a_poller_is_asked_once_and_prepares_the_sleep() {
    assert_eq!(wait_for(Duration::ZERO, None), (1, 1, 0));
}

#[test]
fn a_busy_executor_looks_as_well() {
    let mut executor = Executor::new(&Config::default()).unwrap();
    executor.block_on(async {
        let looks = Rc::new(Cell::new(0));
        let _guard = idle_poller(Rc::new({
            let looks = Rc::clone(&looks);
            move || {
                looks.set(looks.get() + 1);
                false
            }
        }));
        // Never without a ready task: nothing here ends a sleep.
        while looks.get() < 3 {
            yield_now().await;
        }
    });
}
