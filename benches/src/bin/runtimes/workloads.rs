//! The same work on each runtime. The code is the same but for names, so it is a macro that each
//! runtime fills in.

use std::time::{Duration, Instant};

/// Processor time of the calling thread.
fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

macro_rules! workloads {
    (
        $module:ident,
        block_on: $block_on:expr,
        spawn: $spawn:expr,
        open: $open:expr,
        read: $read:expr,
        pair: $pair:expr,
        send: $send:expr,
        receive: $receive:expr,
        sleep: $sleep:expr,
    ) => {
        pub(crate) mod $module {
            use std::path::Path;
            use std::rc::Rc;
            use std::time::Duration;

            use super::*;
            use crate::{BLOCK, BLOCKS};

            /// `depth` tasks that read one block after the other.
            pub(crate) fn reads(path: &Path, depth: u64, operations: u64) -> Duration {
                let path = path.to_owned();
                $block_on(async move {
                    let file = Rc::new($open(path).await);
                    let start = Instant::now();
                    let mut tasks = Vec::new();
                    for task in 0..depth {
                        let file = Rc::clone(&file);
                        tasks.push($spawn(async move {
                            let mut numbers = benches::Numbers::new(task + 1);
                            let mut buffer = vec![0_u8; BLOCK];
                            for _ in 0..operations / depth {
                                let offset = numbers.below(BLOCKS) * BLOCK as u64;
                                buffer = $read(&file, buffer, offset).await;
                            }
                        }));
                    }
                    for task in tasks {
                        let _ = task.await;
                    }
                    start.elapsed()
                })
            }

            /// One byte to and fro.
            pub(crate) fn ping_pong(operations: u64) -> Duration {
                $block_on(async move {
                    let (mut a, mut b) = $pair();
                    let echo = $spawn(async move {
                        let mut buffer = vec![0_u8; 1];
                        for _ in 0..operations {
                            buffer = $receive(&mut b, buffer).await;
                            buffer = $send(&mut b, buffer).await;
                        }
                    });
                    let start = Instant::now();
                    let mut buffer = vec![1_u8; 1];
                    for _ in 0..operations {
                        buffer = $send(&mut a, buffer).await;
                        buffer = $receive(&mut a, buffer).await;
                    }
                    let _ = echo.await;
                    start.elapsed()
                })
            }

            /// Tasks that end at once.
            pub(crate) fn spawns(operations: u64) -> Duration {
                $block_on(async move {
                    let start = Instant::now();
                    for number in 0..operations {
                        let task = $spawn(async move { std::hint::black_box(number) });
                        let _ = task.await;
                    }
                    start.elapsed()
                })
            }

            /// A thousand sleeps at once.
            pub(crate) fn timers(operations: u64) -> Duration {
                const AT_ONCE: u64 = 1000;
                $block_on(async move {
                    let start = thread_time();
                    let mut tasks = Vec::new();
                    for task in 0..AT_ONCE {
                        tasks.push($spawn(async move {
                            let mut numbers = benches::Numbers::new(task + 1);
                            for _ in 0..operations / AT_ONCE {
                                let length = Duration::from_micros(1000 + numbers.below(4000));
                                $sleep(length).await;
                            }
                        }));
                    }
                    for task in tasks {
                        let _ = task.await;
                    }
                    thread_time() - start
                })
            }
        }
    };
}

fn unix_pair() -> (std::os::unix::net::UnixStream, std::os::unix::net::UnixStream) {
    let (a, b) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
    a.set_nonblocking(true).expect("a nonblocking socket");
    b.set_nonblocking(true).expect("a nonblocking socket");
    (a, b)
}

workloads! {
    ours,
    block_on: |future| {
        executor::Executor::new(&executor::Config::default()).expect("an executor").block_on(future)
    },
    spawn: executor::spawn,
    open: |path: std::path::PathBuf| async move {
        executor::Fd::new(std::fs::File::open(path).expect("opens")).expect("registers")
    },
    read: |file: &Rc<executor::Fd>, buffer: Vec<u8>, offset| {
        let read = file.read_at(buffer, offset);
        async move {
            let (result, buffer) = read.await;
            result.expect("reads");
            buffer
        }
    },
    pair: || {
        let (a, b) = unix_pair();
        (executor::Fd::new(a).expect("registers"), executor::Fd::new(b).expect("registers"))
    },
    send: |socket: &mut executor::Fd, buffer: Vec<u8>| {
        let sent = socket.send(buffer, executor::SendFlags::empty());
        async move {
            let (result, buffer) = sent.await;
            result.expect("sends");
            buffer
        }
    },
    receive: |socket: &mut executor::Fd, buffer: Vec<u8>| {
        let received = socket.recv(buffer, executor::RecvFlags::empty());
        async move {
            let (result, buffer) = received.await;
            result.expect("receives");
            buffer
        }
    },
    sleep: executor::sleep,
}

workloads! {
    tokio_uring_,
    block_on: tokio_uring::start,
    spawn: tokio_uring::spawn,
    open: |path: std::path::PathBuf| async move {
        tokio_uring::fs::File::open(path).await.expect("opens")
    },
    read: |file: &Rc<tokio_uring::fs::File>, buffer: Vec<u8>, offset| {
        let file = Rc::clone(file);
        async move {
            let (result, buffer) = file.read_at(buffer, offset).await;
            result.expect("reads");
            buffer
        }
    },
    pair: || {
        let (a, b) = unix_pair();
        (
            Rc::new(tokio_uring::net::UnixStream::from_std(a)),
            Rc::new(tokio_uring::net::UnixStream::from_std(b)),
        )
    },
    send: |socket: &mut Rc<tokio_uring::net::UnixStream>, buffer: Vec<u8>| {
        let socket = Rc::clone(socket);
        async move {
            let (result, buffer) = socket.write(buffer).submit().await;
            result.expect("sends");
            buffer
        }
    },
    receive: |socket: &mut Rc<tokio_uring::net::UnixStream>, buffer: Vec<u8>| {
        let socket = Rc::clone(socket);
        async move {
            let (result, buffer) = socket.read(buffer).await;
            result.expect("receives");
            buffer
        }
    },
    sleep: tokio::time::sleep,
}

workloads! {
    monoio_,
    block_on: |future| {
        monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
            .enable_timer()
            .build()
            .expect("a runtime")
            .block_on(future)
    },
    spawn: monoio::spawn,
    open: |path: std::path::PathBuf| async move {
        monoio::fs::File::open(path).await.expect("opens")
    },
    read: |file: &Rc<monoio::fs::File>, buffer: Vec<u8>, offset| {
        let file = Rc::clone(file);
        async move {
            let (result, buffer) = file.read_at(buffer, offset).await;
            result.expect("reads");
            buffer
        }
    },
    pair: || {
        let (a, b) = unix_pair();
        (
            monoio::net::UnixStream::from_std(a).expect("a stream"),
            monoio::net::UnixStream::from_std(b).expect("a stream"),
        )
    },
    send: async |socket: &mut monoio::net::UnixStream, buffer: Vec<u8>| {
        let (result, buffer) = monoio::io::AsyncWriteRent::write(socket, buffer).await;
        result.expect("sends");
        buffer
    },
    receive: async |socket: &mut monoio::net::UnixStream, buffer: Vec<u8>| {
        let (result, buffer) = monoio::io::AsyncReadRent::read(socket, buffer).await;
        result.expect("receives");
        buffer
    },
    sleep: monoio::time::sleep,
}

workloads! {
    compio_,
    block_on: |future| compio::runtime::Runtime::new().expect("a runtime").block_on(future),
    spawn: compio::runtime::spawn,
    open: |path: std::path::PathBuf| async move {
        compio::fs::File::open(path).await.expect("opens")
    },
    read: |file: &Rc<compio::fs::File>, buffer: Vec<u8>, offset| {
        let file = Rc::clone(file);
        async move {
            let compio::BufResult(result, buffer) =
                compio::io::AsyncReadAt::read_at(&*file, buffer, offset).await;
            result.expect("reads");
            buffer
        }
    },
    pair: || {
        let (a, b) = unix_pair();
        (
            compio::net::UnixStream::from_std(a).expect("a stream"),
            compio::net::UnixStream::from_std(b).expect("a stream"),
        )
    },
    send: async |socket: &mut compio::net::UnixStream, buffer: Vec<u8>| {
        let compio::BufResult(result, buffer) = compio::io::AsyncWrite::write(socket, buffer).await;
        result.expect("sends");
        buffer
    },
    receive: async |socket: &mut compio::net::UnixStream, buffer: Vec<u8>| {
        let compio::BufResult(result, buffer) = compio::io::AsyncRead::read(socket, buffer).await;
        result.expect("receives");
        buffer
    },
    sleep: compio::time::sleep,
}
