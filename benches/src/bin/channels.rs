//! The bounded channel against crossbeam-channel and tokio's mpsc, in one run.
//!
//! ```text
//! cargo run --release -p benches --bin channels [ROUNDS]
//! ```
//!
//! * tasks: two tasks of one executor, a channel of 64
//! * threads: one thread sends to another, a channel of 64
//! * ping-pong: two threads, two channels, one message under way
//! * call: a request with its answer between two threads

use std::time::Duration;

use benches::{Contestant, compare, print, timed};
use ipc::{Deadline, Reply};
use serde::{Deserialize, Serialize};

/// Depth of the channels, as a device's would be.
const CAPACITY: usize = 64;

fn forever() -> Deadline {
    Deadline::after(Duration::MAX)
}

/// A request with a port for its answer.
#[derive(Debug, Serialize, Deserialize)]
struct Double {
    number: u64,
    reply: Reply<u64>,
}

fn main() {
    benches::help("channels [ROUNDS]");
    let rounds = benches::rounds();
    let contestants =
        [Contestant::new("ipc", tasks_ipc), Contestant::new("tokio mpsc", tasks_tokio)];
    print("between tasks", &compare(&contestants, 1_000_000, rounds));
    let contestants = [
        Contestant::new("ipc", threads_ipc),
        Contestant::new("crossbeam", threads_crossbeam),
        Contestant::new("tokio mpsc", threads_tokio),
    ];
    print("between threads", &compare(&contestants, 1_000_000, rounds));
    let contestants = [
        Contestant::new("ipc", ping_pong_ipc),
        Contestant::new("crossbeam", ping_pong_crossbeam),
        Contestant::new("tokio mpsc", ping_pong_tokio),
    ];
    print("ping-pong between threads", &compare(&contestants, 50_000, rounds));
    let contestants = [
        Contestant::new("ipc", call_ipc),
        Contestant::new("crossbeam", call_crossbeam),
        Contestant::new("tokio oneshot", call_tokio),
    ];
    print("call between threads", &compare(&contestants, 50_000, rounds));
}

fn tasks_ipc(operations: u64) -> Duration {
    let mut executor = executor::Executor::new(&executor::Config::default()).expect("an executor");
    executor.block_on(async move {
        let (sender, mut receiver) = ipc::channel::<u64>(CAPACITY);
        let start = std::time::Instant::now();
        let task = executor::spawn(async move {
            for number in 0..operations {
                sender.send(number).await.expect("sends");
            }
        });
        for number in 0..operations {
            assert_eq!(receiver.recv().await, Ok(number));
        }
        task.await;
        start.elapsed()
    })
}

fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

fn tasks_tokio(operations: u64) -> Duration {
    let local = tokio::task::LocalSet::new();
    local.block_on(&tokio_runtime(), async move {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<u64>(CAPACITY);
        let start = std::time::Instant::now();
        let task = tokio::task::spawn_local(async move {
            for number in 0..operations {
                sender.send(number).await.expect("sends");
            }
        });
        for number in 0..operations {
            assert_eq!(receiver.recv().await, Some(number));
        }
        task.await.expect("ends");
        start.elapsed()
    })
}

fn threads_ipc(operations: u64) -> Duration {
    let (sender, mut receiver) = ipc::channel::<u64>(CAPACITY);
    timed(|| {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..operations {
                    sender.send_blocking(number, forever()).expect("sends");
                }
            });
            for number in 0..operations {
                assert_eq!(receiver.recv_blocking(forever()), Ok(number));
            }
        });
    })
}

fn threads_crossbeam(operations: u64) -> Duration {
    let (sender, receiver) = crossbeam_channel::bounded::<u64>(CAPACITY);
    timed(|| {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..operations {
                    sender.send(number).expect("sends");
                }
            });
            for number in 0..operations {
                assert_eq!(receiver.recv(), Ok(number));
            }
        });
    })
}

fn threads_tokio(operations: u64) -> Duration {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<u64>(CAPACITY);
    timed(|| {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..operations {
                    sender.blocking_send(number).expect("sends");
                }
            });
            for number in 0..operations {
                assert_eq!(receiver.blocking_recv(), Some(number));
            }
        });
    })
}

fn ping_pong_ipc(operations: u64) -> Duration {
    let (ask, mut requests) = ipc::channel::<u64>(1);
    let (answer_with, mut answers) = ipc::channel::<u64>(1);
    timed(|| {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..operations {
                    let number = requests.recv_blocking(forever()).expect("receives");
                    answer_with.send_blocking(number, forever()).expect("sends");
                }
            });
            for number in 0..operations {
                ask.send_blocking(number, forever()).expect("sends");
                assert_eq!(answers.recv_blocking(forever()), Ok(number));
            }
        });
    })
}

fn ping_pong_crossbeam(operations: u64) -> Duration {
    let (ask, requests) = crossbeam_channel::bounded::<u64>(1);
    let (answer_with, answers) = crossbeam_channel::bounded::<u64>(1);
    timed(|| {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..operations {
                    answer_with.send(requests.recv().expect("receives")).expect("sends");
                }
            });
            for number in 0..operations {
                ask.send(number).expect("sends");
                assert_eq!(answers.recv(), Ok(number));
            }
        });
    })
}

fn ping_pong_tokio(operations: u64) -> Duration {
    let (ask, mut requests) = tokio::sync::mpsc::channel::<u64>(1);
    let (answer_with, mut answers) = tokio::sync::mpsc::channel::<u64>(1);
    timed(|| {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..operations {
                    let number = requests.blocking_recv().expect("receives");
                    answer_with.blocking_send(number).expect("sends");
                }
            });
            for number in 0..operations {
                ask.blocking_send(number).expect("sends");
                assert_eq!(answers.blocking_recv(), Some(number));
            }
        });
    })
}

fn call_ipc(operations: u64) -> Duration {
    let (sender, mut receiver) = ipc::channel::<Double>(CAPACITY);
    timed(|| {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while let Ok(request) = receiver.recv_blocking(forever()) {
                    request.reply.send(request.number * 2);
                }
            });
            for number in 0..operations {
                let answer = sender.call_blocking(|reply| Double { number, reply }, forever());
                assert_eq!(answer, Ok(number * 2));
            }
            drop(sender);
        });
    })
}

fn call_crossbeam(operations: u64) -> Duration {
    type Request = (u64, crossbeam_channel::Sender<u64>);
    let (sender, receiver) = crossbeam_channel::bounded::<Request>(CAPACITY);
    timed(|| {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while let Ok((number, reply)) = receiver.recv() {
                    reply.send(number * 2).expect("answers");
                }
            });
            for number in 0..operations {
                let (reply, answer) = crossbeam_channel::bounded(1);
                sender.send((number, reply)).expect("sends");
                assert_eq!(answer.recv(), Ok(number * 2));
            }
            drop(sender);
        });
    })
}

fn call_tokio(operations: u64) -> Duration {
    type Request = (u64, tokio::sync::oneshot::Sender<u64>);
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Request>(CAPACITY);
    timed(|| {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while let Some((number, reply)) = receiver.blocking_recv() {
                    reply.send(number * 2).expect("answers");
                }
            });
            for number in 0..operations {
                let (reply, answer) = tokio::sync::oneshot::channel();
                sender.blocking_send((number, reply)).expect("sends");
                assert_eq!(answer.blocking_recv(), Ok(number * 2));
            }
            drop(sender);
        });
    })
}
