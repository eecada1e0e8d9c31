//! Tests of tasks, wakers, timers and slots without a kernel: `cargo +nightly miri test --lib`
//! runs them too. Where memory is shared between threads they are small, for it is slow.

#![allow(clippy::async_yields_async, reason = "handles of tasks are results here")]

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use crate::driver::still::Still;
use crate::{Fd, Op, OpSet, PollFlags, TaskGroup, select, sleep, spawn, timeout, yield_now};

#[test]
fn tasks_join_detach_and_cancel() {
    let token = Rc::new(());
    let mut executor = Still::executor(0);
    executor.block_on(async {
        let sum: u32 = {
            let tasks: Vec<_> = (0..10).map(|number| spawn(async move { number })).collect();
            let mut sum = 0;
            for task in tasks {
                yield_now().await;
                sum += task.await;
            }
            sum
        };
        assert_eq!(sum, 45);
        for _ in 0..3 {
            let held = Rc::clone(&token);
            spawn(async move { held }).detach();
            let held = Rc::clone(&token);
            let task = spawn(async move {
                std::future::pending::<()>().await;
                drop(held);
            });
            yield_now().await;
            task.cancel();
        }
        yield_now().await;
        assert_eq!(Rc::strong_count(&token), 1);
        let held = Rc::clone(&token);
        let output = spawn(async move { held });
        yield_now().await;
        drop(output);
        assert_eq!(Rc::strong_count(&token), 1);
    });
    let held = Rc::clone(&token);
    let left = executor.block_on(async move {
        spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        })
    });
    drop(executor);
    assert_eq!(Rc::strong_count(&token), 1);
    drop(left);
}

#[test]
fn wakers_may_outlive_everything_on_any_thread() {
    let mut executor = Still::executor(0);
    let kept: Arc<Mutex<Vec<Waker>>> = Arc::default();
    executor.block_on(async {
        for ready in [true, false] {
            let kept = Arc::clone(&kept);
            spawn(poll_fn(move |context| {
                kept.lock().unwrap().push(context.waker().clone());
                if ready { Poll::Ready(Box::new(1)) } else { Poll::Pending }
            }))
            .detach();
        }
        yield_now().await;
        for waker in &*kept.lock().unwrap() {
            waker.wake_by_ref();
            let another = waker.clone();
            another.wake();
        }
        yield_now().await;
        poll_fn(|context| {
            kept.lock().unwrap().push(context.waker().clone());
            Poll::Ready(())
        })
        .await;
    });
    let mut wakers = std::mem::take(&mut *kept.lock().unwrap());
    wakers.iter().for_each(Waker::wake_by_ref);
    let last = wakers.pop().unwrap();
    let other = thread::spawn(move || wakers.into_iter().for_each(Waker::wake));
    drop(executor);
    other.join().unwrap();
    last.wake_by_ref();
    drop(last);
}

#[test]
fn threads_wake_and_spawn() {
    let mut executor = Still::executor(0);
    let rounds = if cfg!(miri) { 20 } else { 10_000 };
    let remote = executor.remote();
    let waker: Arc<Mutex<(usize, Option<Waker>)>> = Arc::default();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (waker, remote) = (Arc::clone(&waker), remote.clone());
            thread::spawn(move || {
                for _ in 0..rounds {
                    let waiting = {
                        let mut state = waker.lock().unwrap();
                        state.0 += 1;
                        state.1.take()
                    };
                    if let Some(waiting) = waiting {
                        waiting.wake();
                    }
                    let waker = Arc::clone(&waker);
                    remote.spawn(move || async move {
                        yield_now().await;
                        let waiting = {
                            let mut state = waker.lock().unwrap();
                            state.0 += 1;
                            state.1.take()
                        };
                        waiting.map(Waker::wake)
                    });
                }
            })
        })
        .collect();
    executor.block_on(poll_fn(|context| {
        let mut state = waker.lock().unwrap();
        if state.0 == 4 * rounds {
            return Poll::Ready(());
        }
        state.1 = Some(context.waker().clone());
        Poll::Pending
    }));
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn groups_cancel_and_drain() {
    let mut executor = Still::executor(0);
    executor.block_on(async {
        let (reader, _writer) = std::io::pipe().unwrap();
        let file = Fd::new(reader).unwrap();
        let group = TaskGroup::new();
        for _ in 0..4 {
            let file = file.clone();
            group.spawn(async move {
                let mut set = OpSet::with_capacity(2);
                assert!(set.submit(Op::fsync(&file), Rc::new(1)).is_ok());
                let _ = select(file.fsync(), yield_now()).await;
                std::future::pending::<()>().await;
            });
        }
        yield_now().await;
        yield_now().await;
        group.cancel_all().await;
        assert!(group.is_empty());
    });
}

#[test]
fn operations_come_back_in_order() {
    let mut executor = Still::executor(0);
    executor.block_on(async {
        let (reader, _writer) = std::io::pipe().unwrap();
        let file = Fd::new(reader).unwrap();
        let mut set = OpSet::with_capacity(3);
        for round in 0..5 {
            for index in 0..3 {
                let op = Op::poll(&file, PollFlags::IN);
                assert!(set.submit(op, Box::new(round * 3 + index)).is_ok());
            }
            assert!(set.submit(Op::fsync(&file), Box::new(0)).is_err());
            for index in 0..3 {
                let (payload, result) = set.next().await;
                assert_eq!(*payload, round * 3 + index);
                assert_eq!(result.unwrap(), *payload + 1);
            }
        }
        assert!(set.submit(Op::fsync(&file), Box::new(1)).is_ok());
        drop(set);
        let (result, buffer) = file.read_at(Vec::with_capacity(64), 0).await;
        assert_eq!((result.unwrap(), buffer.capacity()), (17, 64));
    });
}

#[test]
fn time_passes_only_while_waiting() {
    let mut executor = Still::executor(0);
    executor.block_on(async {
        let start = crate::now();
        sleep(Duration::from_hours(1)).await;
        assert!(crate::now() - start >= Duration::from_hours(1));
        let late = timeout(Duration::from_secs(1), sleep(Duration::from_secs(2))).await;
        assert!(late.is_err());
        let elapsed = crate::now() - start;
        assert!(elapsed < Duration::from_secs(3602), "{elapsed:?}");
    });
}

#[test]
fn a_driver_can_choose_the_order_of_tasks() {
    let order = |seed| {
        let order = Rc::new(RefCell::new(Vec::new()));
        Still::executor(seed).block_on(async {
            let group = TaskGroup::new();
            for number in 0..8 {
                let order = Rc::clone(&order);
                group.spawn(async move { order.borrow_mut().push(number) });
            }
            group.wait().await;
        });
        order.take()
    };
    assert_eq!(order(0), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(order(42), order(42), "the seed decides");
    assert_ne!(order(42), order(0));
    let mut sorted = order(42);
    sorted.sort_unstable();
    assert_eq!(sorted, order(0));
}

#[test]
fn a_panic_drops_the_task_and_leaves_the_rest() {
    let mut executor = Still::executor(0);
    let token = Rc::new(());
    let (held, other) = (Rc::clone(&token), Rc::clone(&token));
    let survivor = executor.block_on(async {
        spawn(async move {
            for _ in 0..5 {
                yield_now().await;
            }
            drop(other);
            7
        })
    });
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        executor.block_on(async {
            spawn(async move {
                assert!(Rc::strong_count(&held) == 0, "on purpose");
            })
            .await;
        });
    }));
    assert!(outcome.is_err());
    assert_eq!(executor.block_on(survivor), 7);
    assert_eq!(Rc::strong_count(&token), 1);
}

#[test]
fn a_foreign_waker_works_inside_operations() {
    struct Count(Mutex<u32>);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap() += 1;
        }
    }
    let mut executor = Still::executor(0);
    executor.block_on(async {
        let count = Arc::new(Count(Mutex::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let (reader, _writer) = std::io::pipe().unwrap();
        let file = Fd::new(reader).unwrap();
        let mut sync = pin!(file.fsync());
        let mut nap = pin!(sleep(Duration::from_millis(1)));
        assert!(sync.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(nap.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        sleep(Duration::from_millis(2)).await;
        assert_eq!(*count.0.lock().unwrap(), 2);
        sync.await.unwrap();
        nap.await;
    });
}

#[test]
fn stale_entries_do_not_disturb() {
    let calls = Rc::new(Cell::new(0));
    let mut executor = Still::executor(0);
    let inner = Rc::clone(&calls);
    executor.block_on(async move {
        let task = spawn(async move {
            for _ in 0..3 {
                inner.set(inner.get() + 1);
                yield_now().await;
            }
        });
        yield_now().await;
        // It is in the ready queue.
        task.cancel();
        for _ in 0..5 {
            yield_now().await;
        }
    });
    assert_eq!(calls.get(), 1);
}
