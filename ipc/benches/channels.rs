//! Local channels against crossbeam-channel and tokio's mpsc, in one run.
//!
//! `cargo bench -p ipc --bench channels [-- --json]`

mod common;

use std::hint::black_box;
use std::time::Duration;

use common::{Case, compare, timed};
use ipc::Deadline;

const CAPACITY: usize = 128;
const ROUNDS: usize = 9;

fn far() -> Deadline {
    Deadline::after(Duration::from_mins(10))
}

fn on_executor<F: Future>(future: F) -> F::Output {
    let mut executor = executor::Executor::new(&executor::Config::default()).expect("an executor");
    executor.block_on(async {
        let output = future.await;
        executor::flush();
        output
    })
}

fn on_tokio<F: Future>(future: F) -> F::Output {
    let builder = tokio::runtime::Builder::new_current_thread().enable_all().build();
    builder.expect("a runtime").block_on(future)
}

/// One thread, no waiting: what the queue itself costs.
fn same_thread() {
    let (ipc_sender, mut ipc_receiver) = ipc::channel::<u64>(CAPACITY);
    let (crossbeam_sender, crossbeam_receiver) = crossbeam_channel::bounded::<u64>(CAPACITY);
    let (tokio_sender, mut tokio_receiver) = tokio::sync::mpsc::channel::<u64>(CAPACITY);
    let mut bursts: Vec<(&str, u32)> = vec![("one at a time", 1), ("64 at a time", 64)];
    for (name, burst) in bursts.drain(..) {
        let mut ipc = |count: u32| {
            timed(|| {
                for _ in 0..count / burst {
                    (0..burst).for_each(|value| ipc_sender.try_send(value.into()).unwrap());
                    (0..burst).for_each(|_| {
                        black_box(ipc_receiver.try_recv().unwrap());
                    });
                }
            })
        };
        let mut crossbeam = |count: u32| {
            timed(|| {
                for _ in 0..count / burst {
                    (0..burst).for_each(|value| crossbeam_sender.try_send(value.into()).unwrap());
                    (0..burst).for_each(|_| {
                        black_box(crossbeam_receiver.try_recv().unwrap());
                    });
                }
            })
        };
        let mut tokio = |count: u32| {
            timed(|| {
                for _ in 0..count / burst {
                    (0..burst).for_each(|value| tokio_sender.try_send(value.into()).unwrap());
                    (0..burst).for_each(|_| {
                        black_box(tokio_receiver.try_recv().unwrap());
                    });
                }
            })
        };
        compare(
            &format!("one thread, send and receive, {name}"),
            640_000,
            ROUNDS,
            vec![
                Case::new("ipc", &mut ipc),
                Case::new("crossbeam-channel", &mut crossbeam),
                Case::new("tokio mpsc", &mut tokio),
            ],
        );
    }
}

/// Two tasks of one executor.
fn same_thread_async() {
    async fn ipc(count: u32) {
        let (sender, mut receiver) = ipc::channel::<u64>(CAPACITY);
        let task = executor::spawn(async move {
            for value in 0..count {
                sender.send(value.into()).await.unwrap();
            }
        });
        while let Ok(value) = receiver.recv().await {
            black_box(value);
        }
        task.await;
    }
    async fn tokio_here(count: u32) {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<u64>(CAPACITY);
        let task = executor::spawn(async move {
            for value in 0..count {
                sender.send(value.into()).await.unwrap();
            }
        });
        while let Some(value) = receiver.recv().await {
            black_box(value);
        }
        task.await;
    }
    async fn tokio_there(count: u32) {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<u64>(CAPACITY);
        let task = tokio::spawn(async move {
            for value in 0..count {
                sender.send(value.into()).await.unwrap();
            }
        });
        while let Some(value) = receiver.recv().await {
            black_box(value);
        }
        task.await.unwrap();
    }
    compare(
        "two tasks of one thread, stream",
        300_000,
        ROUNDS,
        vec![
            Case::new("ipc", |count| timed(|| on_executor(ipc(count)))),
            Case::new("tokio mpsc, our executor", |count| timed(|| on_executor(tokio_here(count)))),
            Case::new("tokio mpsc, tokio", |count| timed(|| on_tokio(tokio_there(count)))),
        ],
    );

    ping_pong_async();
}

/// Two tasks of one executor, one message goes back and forth.
fn ping_pong_async() {
    async fn ipc_pings(count: u32) {
        let (outward, mut requests) = ipc::channel::<u64>(1);
        let (homeward, mut answers) = ipc::channel::<u64>(1);
        executor::spawn(async move {
            while let Ok(value) = requests.recv().await {
                homeward.send(value).await.unwrap();
            }
        })
        .detach();
        for value in 0..count {
            outward.send(value.into()).await.unwrap();
            black_box(answers.recv().await.unwrap());
        }
    }
    async fn tokio_pings(count: u32) {
        let (outward, mut requests) = tokio::sync::mpsc::channel::<u64>(1);
        let (homeward, mut answers) = tokio::sync::mpsc::channel::<u64>(1);
        tokio::spawn(async move {
            while let Some(value) = requests.recv().await {
                homeward.send(value).await.unwrap();
            }
        });
        for value in 0..count {
            outward.send(value.into()).await.unwrap();
            black_box(answers.recv().await.unwrap());
        }
    }
    compare(
        "two tasks of one thread, ping-pong",
        100_000,
        ROUNDS,
        vec![
            Case::new("ipc", |count| timed(|| on_executor(ipc_pings(count)))),
            Case::new("tokio mpsc, tokio", |count| timed(|| on_tokio(tokio_pings(count)))),
        ],
    );
}

/// Two threads, one sends and one receives.
fn two_threads() {
    fn ipc(count: u32) {
        let (sender, mut receiver) = ipc::channel::<u64>(CAPACITY);
        let thread = std::thread::spawn(move || {
            let far = far();
            for value in 0..count {
                sender.send_blocking(value.into(), far).unwrap();
            }
        });
        let far = far();
        while let Ok(value) = receiver.recv_blocking(far) {
            black_box(value);
        }
        thread.join().unwrap();
    }
    fn crossbeam(count: u32) {
        let (sender, receiver) = crossbeam_channel::bounded::<u64>(CAPACITY);
        let thread = std::thread::spawn(move || {
            for value in 0..count {
                sender.send(value.into()).unwrap();
            }
        });
        while let Ok(value) = receiver.recv() {
            black_box(value);
        }
        thread.join().unwrap();
    }
    fn tokio(count: u32) {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<u64>(CAPACITY);
        let thread = std::thread::spawn(move || {
            for value in 0..count {
                sender.blocking_send(value.into()).unwrap();
            }
        });
        while let Some(value) = receiver.blocking_recv() {
            black_box(value);
        }
        thread.join().unwrap();
    }
    compare(
        "two threads, stream",
        300_000,
        ROUNDS,
        vec![
            Case::new("ipc", |count| timed(|| ipc(count))),
            Case::new("crossbeam-channel", |count| timed(|| crossbeam(count))),
            Case::new("tokio mpsc", |count| timed(|| tokio(count))),
        ],
    );
}

/// Two threads, one message goes back and forth.
fn ping_pong() {
    fn ipc(count: u32) {
        let (outward, mut requests) = ipc::channel::<u64>(1);
        let (homeward, mut answers) = ipc::channel::<u64>(1);
        let thread = std::thread::spawn(move || {
            let far = far();
            while let Ok(value) = requests.recv_blocking(far) {
                homeward.send_blocking(value, far).unwrap();
            }
        });
        let far = far();
        for value in 0..count {
            outward.send_blocking(value.into(), far).unwrap();
            black_box(answers.recv_blocking(far).unwrap());
        }
        drop(outward);
        thread.join().unwrap();
    }
    fn crossbeam(count: u32) {
        let (outward, requests) = crossbeam_channel::bounded::<u64>(1);
        let (homeward, answers) = crossbeam_channel::bounded::<u64>(1);
        let thread = std::thread::spawn(move || {
            while let Ok(value) = requests.recv() {
                homeward.send(value).unwrap();
            }
        });
        for value in 0..count {
            outward.send(value.into()).unwrap();
            black_box(answers.recv().unwrap());
        }
        drop(outward);
        thread.join().unwrap();
    }
    fn tokio(count: u32) {
        let (outward, mut requests) = tokio::sync::mpsc::channel::<u64>(1);
        let (homeward, mut answers) = tokio::sync::mpsc::channel::<u64>(1);
        let thread = std::thread::spawn(move || {
            while let Some(value) = requests.blocking_recv() {
                homeward.blocking_send(value).unwrap();
            }
        });
        for value in 0..count {
            outward.blocking_send(value.into()).unwrap();
            black_box(answers.blocking_recv().unwrap());
        }
        drop(outward);
        thread.join().unwrap();
    }
    compare(
        "two threads, ping-pong",
        20_000,
        ROUNDS,
        vec![
            Case::new("ipc", |count| timed(|| ipc(count))),
            Case::new("crossbeam-channel", |count| timed(|| crossbeam(count))),
            Case::new("tokio mpsc", |count| timed(|| tokio(count))),
        ],
    );
}

/// Two threads, each with an executor, one message goes back and forth.
fn async_ping_pong() {
    fn ipc(count: u32) {
        let (outward, mut requests) = ipc::channel::<u64>(1);
        let (homeward, mut answers) = ipc::channel::<u64>(1);
        let thread = std::thread::spawn(move || {
            on_executor(async move {
                while let Ok(value) = requests.recv().await {
                    homeward.send(value).await.unwrap();
                }
            });
        });
        on_executor(async move {
            for value in 0..count {
                outward.send(value.into()).await.unwrap();
                black_box(answers.recv().await.unwrap());
            }
        });
        thread.join().unwrap();
    }
    fn tokio(count: u32) {
        let (outward, mut requests) = tokio::sync::mpsc::channel::<u64>(1);
        let (homeward, mut answers) = tokio::sync::mpsc::channel::<u64>(1);
        let thread = std::thread::spawn(move || {
            on_tokio(async move {
                while let Some(value) = requests.recv().await {
                    homeward.send(value).await.unwrap();
                }
            });
        });
        on_tokio(async move {
            for value in 0..count {
                outward.send(value.into()).await.unwrap();
                black_box(answers.recv().await.unwrap());
            }
        });
        thread.join().unwrap();
    }
    compare(
        "two threads with an executor each, ping-pong",
        10_000,
        ROUNDS,
        vec![
            Case::new("ipc, our executor", |count| timed(|| ipc(count))),
            Case::new("tokio mpsc, tokio", |count| timed(|| tokio(count))),
        ],
    );
}

fn main() {
    same_thread();
    same_thread_async();
    two_threads();
    ping_pong();
    async_ping_pong();
}
