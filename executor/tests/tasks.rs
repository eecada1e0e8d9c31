//! Tasks, groups, wake-ups from other threads, timers.

#![allow(clippy::async_yields_async, reason = "handles of tasks are results here")]

mod common;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use common::{on_each_driver, pipe, turn_until, write_now, yield_turns};
use executor::{
    Config, DriverChoice, Either, Elapsed, Executor, Remote, TaskGroup, YieldNow, idle_poller,
    join, join_all, select, sleep, sleep_until, spawn, stats, timeout, yield_now,
};

/// A flag that a thread raises and a task waits for.
#[derive(Default)]
struct Flag {
    raised: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Flag {
    fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        if let Some(waker) = self.waker.lock().unwrap().take() {
            waker.wake();
        }
    }

    /// Waits until it is raised, and lowers it.
    async fn taken(&self) {
        poll_fn(|context| {
            *self.waker.lock().unwrap() = Some(context.waker().clone());
            if self.raised.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

on_each_driver! {
    fn tasks_run_and_return(executor) {
        let outputs = executor.block_on(async {
            let tasks: Vec<_> = (0..1000).map(|number| spawn(async move { number * 2 })).collect();
            let mut sum = 0;
            for task in tasks {
                sum += task.await;
            }
            sum
        });
        assert_eq!(outputs, 999 * 1000);
    }

    fn who_tells_the_time_does_not_keep_others_from_the_kernel(executor) {
        const POLLS: u32 = 200;
        let turns = |tells: bool| async move {
            let before = stats().expect("an executor").turns;
            let (begin, mut polls) = (executor::now(), 0);
            poll_fn(|context| {
                polls += 1;
                if tells {
                    executor::tell_time(begin + polls * Duration::from_micros(10));
                }
                context.waker().wake_by_ref();
                if polls == POLLS { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            stats().expect("an executor").turns - before
        };
        executor.block_on(async {
            assert!(turns(false).await <= 2, "they share a turn");
            let told = turns(true).await;
            assert!((30..=50).contains(&told), "five polls are long: {told}");
        });
    }

    fn tasks_go_on_in_the_next_block_on(executor) {
        let steps = Rc::new(Cell::new(0));
        let task = executor.block_on(async {
            let steps = Rc::clone(&steps);
            spawn(async move {
                for _ in 0..3 {
                    steps.set(steps.get() + 1);
                    yield_now().await;
                }
            })
        });
        executor.block_on(task);
        assert_eq!(steps.get(), 3);
    }

    fn a_dropped_handle_detaches(executor) {
        let done = Rc::new(Cell::new(false));
        executor.block_on(async {
            let flag = Rc::clone(&done);
            drop(spawn(async move {
                yield_now().await;
                flag.set(true);
            }));
            turn_until(|| done.get()).await;
        });
    }

    fn a_cancelled_task_drops_its_future(executor) {
        executor.block_on(async {
            let token = Rc::new(());
            let held = Rc::clone(&token);
            let task = spawn(async move {
                std::future::pending::<()>().await;
                drop(held);
            });
            yield_now().await;
            assert_eq!(Rc::strong_count(&token), 2);
            task.cancel();
            assert_eq!(Rc::strong_count(&token), 1);
        });
    }

    fn a_task_may_hold_and_cancel_its_own_handle(executor) {
        executor.block_on(async {
            let token = Rc::new(());
            for cancels in [true, false] {
                let place: Rc<RefCell<Option<executor::Task<()>>>> = Rc::default();
                let (inside, held) = (Rc::clone(&place), Rc::clone(&token));
                let task = spawn(async move {
                    yield_now().await;
                    let own = inside.borrow_mut().take().unwrap();
                    if cancels {
                        own.cancel();
                        std::future::pending::<()>().await;
                    } else {
                        // Dropped together with the future, while that is being dropped.
                        let _own = own;
                        std::future::pending::<()>().await;
                    }
                    drop(held);
                });
                *place.borrow_mut() = Some(task);
                yield_turns(2).await;
                drop(place);
            }
            // The second task still waits; it ends with the executor.
            assert_eq!(Rc::strong_count(&token), 2);
        });
        drop(executor);
    }

    fn dropping_the_executor_drops_tasks_and_outputs(executor) {
        let token = Rc::new(());
        let handle = executor.block_on(async {
            for _ in 0..3 {
                let held = Rc::clone(&token);
                spawn(async move {
                    std::future::pending::<()>().await;
                    drop(held);
                }).detach();
            }
            let output = Rc::clone(&token);
            let handle = spawn(async move { output });
            yield_now().await;
            handle
        });
        assert!(handle.is_finished());
        drop(executor);
        assert_eq!(Rc::strong_count(&token), 2);
        drop(handle);
        assert_eq!(Rc::strong_count(&token), 1);
    }

    fn a_panic_in_a_task_comes_out_and_spares_the_others(executor) {
        let (reader, writer) = executor.block_on(async { pipe() });
        let other = executor.block_on(async {
            let other = spawn(async move { reader.read(vec![0; 4]).await.0 });
            yield_now().await;
            other
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            executor.block_on(async {
                spawn(async { panic!("on purpose") }).await
            })
        }));
        assert!(outcome.is_err());
        write_now(&writer, b"data");
        assert_eq!(executor.block_on(other).unwrap(), 4);
    }

    fn an_endless_task_does_not_keep_operations_from_completing(executor) {
        executor.block_on(async {
            let group = TaskGroup::new();
            group.spawn(async {
                loop {
                    yield_now().await;
                }
            });
            let (reader, writer) = pipe();
            for _ in 0..10 {
                write_now(&writer, b"x");
                assert_eq!(reader.read(vec![0; 4]).await.0.unwrap(), 1);
                sleep(Duration::from_micros(10)).await;
            }
            group.cancel_all().await;
        });
    }

    fn groups_end_by_themselves_or_together(executor) {
        executor.block_on(async {
            let group = TaskGroup::new();
            let count = Rc::new(Cell::new(0));
            for turns in 0..50 {
                let count = Rc::clone(&count);
                group.spawn(async move {
                    for _ in 0..turns {
                        yield_now().await;
                    }
                    count.set(count.get() + 1);
                });
            }
            group.wait().await;
            assert_eq!(count.get(), 50);
            for _ in 0..50 {
                group.spawn(std::future::pending::<()>());
            }
            yield_now().await;
            assert_eq!(group.len(), 50);
            group.cancel_all().await;
            assert!(group.is_empty());
            let token = Rc::new(());
            let held = Rc::clone(&token);
            group.spawn(async move {
                std::future::pending::<()>().await;
                drop(held);
            });
            drop(group);
            assert_eq!(Rc::strong_count(&token), 1);
        });
    }

    fn threads_wake_tasks(executor) {
        const THREADS: u64 = 4;
        const ROUNDS: u64 = 5_000;
        executor.block_on(async {
            let total = Rc::new(Cell::new(0));
            let group = TaskGroup::new();
            let mut threads = Vec::new();
            for _ in 0..THREADS {
                let (flag, taken) = (Arc::new(Flag::default()), Arc::new(AtomicU64::new(0)));
                threads.push(thread::spawn({
                    let (flag, taken) = (Arc::clone(&flag), Arc::clone(&taken));
                    move || {
                        for round in 0..ROUNDS {
                            flag.raise();
                            while taken.load(Ordering::Acquire) <= round {
                                thread::yield_now();
                            }
                        }
                    }
                }));
                let total = Rc::clone(&total);
                group.spawn(async move {
                    for _ in 0..ROUNDS {
                        flag.taken().await;
                        total.set(total.get() + 1);
                        taken.fetch_add(1, Ordering::Release);
                    }
                });
            }
            group.wait().await;
            assert_eq!(total.get(), THREADS * ROUNDS);
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    fn executors_wake_each_other(executor) {
        const ROUNDS: usize = 5_000;
        let choice = match executor.driver() {
            executor::DriverKind::Uring => DriverChoice::Uring,
            executor::DriverKind::Epoll => DriverChoice::Epoll,
            executor::DriverKind::Simulated => unreachable!("it is one of the kernel's"),
        };
        let (there, back) = (Arc::new(Flag::default()), Arc::new(Flag::default()));
        let other = thread::spawn({
            let (there, back) = (Arc::clone(&there), Arc::clone(&back));
            move || {
                let config = Config { driver: choice, ..Config::default() };
                Executor::new(&config).unwrap().block_on(async {
                    for _ in 0..ROUNDS {
                        there.taken().await;
                        back.raise();
                    }
                    // The last wake-up may be queued.
                    executor::flush();
                });
            }
        });
        executor.block_on(async {
            for _ in 0..ROUNDS {
                there.raise();
                back.taken().await;
            }
        });
        other.join().unwrap();
    }

    fn threads_spawn_tasks(executor) {
        let remote = executor.remote();
        let (sender, receiver) = mpsc::channel();
        let flag = Arc::new(Flag::default());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (remote, sender, flag) = (remote.clone(), sender.clone(), Arc::clone(&flag));
                thread::spawn(move || {
                    for number in 0..500u32 {
                        let (sender, flag) = (sender.clone(), Arc::clone(&flag));
                        remote.spawn(move || async move {
                            // Not Send: it lives on the executor's thread.
                            let local = Rc::new(number);
                            yield_now().await;
                            sender.send(*local).unwrap();
                            flag.raise();
                        });
                    }
                })
            })
            .collect();
        let mut sum = 0;
        executor.block_on(async {
            let mut count = 0;
            while count < 2000 {
                flag.taken().await;
                for number in receiver.try_iter() {
                    sum += number;
                    count += 1;
                }
            }
        });
        assert_eq!(sum, 4 * (499 * 500 / 2));
        for thread in threads {
            thread.join().unwrap();
        }
        drop(executor);
        // Too late: dropped, without harm.
        remote.spawn(|| async { unreachable!("the executor has ended") });
        remote.wake();
    }

    fn wakers_outlive_tasks_and_executors(executor) {
        let wakers: Arc<Mutex<Vec<Waker>>> = Arc::default();
        executor.block_on(async {
            for round in 0..10 {
                let wakers = Arc::clone(&wakers);
                let task = spawn(poll_fn(move |context| {
                    wakers.lock().unwrap().push(context.waker().clone());
                    if round % 2 == 0 { Poll::Ready(()) } else { Poll::Pending }
                }));
                if round % 2 == 0 {
                    task.await;
                }
            }
            yield_now().await;
            for waker in &*wakers.lock().unwrap() {
                waker.wake_by_ref();
            }
            yield_now().await;
        });
        // Queued, and never drained.
        let kept = wakers.lock().unwrap().clone();
        let waking = move |wakers: Vec<Waker>| thread::spawn(move || {
            for waker in wakers {
                waker.wake_by_ref();
                waker.wake();
            }
        });
        waking(kept.clone()).join().unwrap();
        drop(executor);
        waking(kept).join().unwrap();
        wakers.lock().unwrap().clear();
    }

    fn waking_by_remote_ends_a_sleep(executor) {
        let remote: Remote = executor.remote();
        let seen = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                while !seen.load(Ordering::Acquire) {
                    remote.wake();
                    thread::yield_now();
                }
            }
        });
        executor.block_on(async {
            let calls = Rc::new(Cell::new(0));
            let flag = Rc::new(Flag::default());
            let _guard = idle_poller(Rc::new({
                let (calls, flag) = (Rc::clone(&calls), Rc::clone(&flag));
                move || {
                    calls.set(calls.get() + 1);
                    let enough = calls.get() > 3;
                    if enough {
                        flag.raise();
                    }
                    enough
                }
            }));
            flag.taken().await;
        });
        seen.store(true, Ordering::Release);
        thread.join().unwrap();
    }

    fn timers_fire_about_in_order_and_never_early(executor) {
        // A quarter of a millisecond, and a tick. A host that stands still while the tasks begin gives
        // timers of close deadlines different lengths, and longer ones may be later.
        const MOST_LATE: Duration = Duration::from_micros(270);
        executor.block_on(async {
            let order = Rc::new(RefCell::new(Vec::new()));
            let group = TaskGroup::new();
            let start = executor::now();
            // Spread over several levels of the wheel, several in one tick, in a muddled order.
            let delays: Vec<u64> = (0..400).map(|index| index * 7919 % 400 * 31).collect();
            let all_wait_since = Rc::new(Cell::new(start));
            for &micros in &delays {
                let (order, all_wait_since) = (Rc::clone(&order), Rc::clone(&all_wait_since));
                group.spawn(async move {
                    let deadline = start + Duration::from_micros(micros);
                    let end = sleep_until(deadline);
                    all_wait_since.set(executor::now());
                    end.await;
                    assert!(executor::now() >= deadline);
                    order.borrow_mut().push(deadline);
                });
            }
            group.wait().await;
            assert_eq!(order.borrow().len(), delays.len());
            // Deadlines that had passed when the task first ran do not wait in line.
            let in_line = |deadline: &executor::Instant| *deadline > all_wait_since.get();
            let waited: Vec<_> = order.take().into_iter().filter(in_line).collect();
            let mut latest = start;
            for &deadline in &waited {
                latest = latest.max(deadline);
                assert!(latest - deadline <= MOST_LATE, "{waited:?}");
            }
        });
    }

    fn a_timeout_drops_what_is_late(executor) {
        executor.block_on(async {
            let (reader, _writer) = pipe();
            let late = timeout(Duration::from_millis(2), reader.read(vec![0; 4])).await;
            assert!(matches!(late, Err(Elapsed)));
            let quick = timeout(Duration::from_hours(1), async { 5 }).await;
            assert_eq!(quick, Ok(5));
            let both = select(std::future::ready(1), std::future::ready(2)).await;
            assert_eq!(both, Either::Left(1));
            sleep(Duration::ZERO).await;
            let forever = select(sleep(Duration::MAX), yield_now()).await;
            assert_eq!(forever, Either::Right(()));
        });
    }

    fn all_that_are_joined_come_to_their_ends(executor) {
        executor.block_on(async {
            let turns = |count: u32| async move {
                for _ in 0..count {
                    yield_now().await;
                }
                count
            };
            assert_eq!(join(turns(3), async { "soon" }).await, (3, "soon"));
            assert_eq!(join(async { "soon" }, turns(3)).await, ("soon", 3));
            assert_eq!(join_all([2, 0, 5].map(turns)).await, [2, 0, 5], "in their order");
            assert_eq!(join_all(Vec::<YieldNow>::new()).await, []);
        });
    }

    fn many_timers_can_be_cancelled(executor) {
        executor.block_on(async {
            for round in 0..20_000u64 {
                let slow = sleep(Duration::from_micros(round % 97 * 1000 + 500));
                let _ = select(slow, yield_now()).await;
            }
            sleep(Duration::from_micros(100)).await;
        });
    }
}

#[test]
#[should_panic(expected = "needs an executor")]
fn spawning_needs_an_executor() {
    spawn(async {}).detach();
}
