//! A ring that is locked down does what it is allowed and nothing else.

mod common;

use std::io::Write;

use common::{eventfd, write_now};
use executor::{
    Config, DriverChoice, Executor, FallocateFlags, Fd, KernelThread, Op, OpSet, Operations,
    Restrictions, SendFlags, Submission, timeout,
};

fn restricted(operations: Operations) -> Executor {
    restricted_with(Submission::BySystemCall, operations)
}

fn restricted_with(submission: Submission, operations: Operations) -> Executor {
    let config = Config {
        driver: DriverChoice::Uring,
        submission,
        restrictions: Some(Restrictions { operations }),
        ..Config::default()
    };
    Executor::new(&config).expect("a ring with restrictions")
}

fn file() -> Fd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"content").unwrap();
    Fd::new(file).unwrap()
}

fn is_refused<T: std::fmt::Debug>(result: std::io::Result<T>) {
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EACCES));
}

#[test]
fn only_what_is_allowed_works() {
    let operations = Operations::READ | Operations::SYNC;
    only_so_much_works(restricted(operations));
    let thread = Submission::ByKernelThread(KernelThread::default());
    only_so_much_works(restricted_with(thread, operations));
}

fn only_so_much_works(mut executor: Executor) {
    executor.block_on(async {
        let file = file();
        assert!(file.is_registered(), "files can still be registered");
        assert_eq!(file.read_at(vec![0; 7], 0).await.1, b"content");
        file.fdatasync().await.unwrap();
        is_refused(file.write_at("x", 0).await.0);
        is_refused(file.fallocate(FallocateFlags::empty(), 0, 10).await);
        is_refused(file.send("x", SendFlags::empty()).await.0);
        is_refused(file.accept().await);
        let mut set = OpSet::with_capacity(1);
        // SAFETY: the memory is static, and it is only read from.
        let op = unsafe { Op::write(&file, b"x".as_ptr(), 1, 0) };
        assert!(set.submit(op, ()).is_ok());
        is_refused(set.next().await.1);
    });
}

#[test]
fn polling_timers_cancelling_and_waking_always_work() {
    let mut executor = restricted(Operations::empty());
    let remote = executor.remote();
    executor.block_on(async {
        let descriptor = eventfd();
        let other = descriptor.try_clone().unwrap();
        let mut notifications = Fd::new(descriptor).unwrap().notifications();
        let none = timeout(std::time::Duration::from_millis(1), notifications.next()).await;
        assert!(none.is_err());
        write_now(&other, &1u64.to_ne_bytes());
        notifications.next().await.unwrap();
        drop(notifications);
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread =
            std::thread::spawn(move || remote.spawn(move || async move { sender.send(1) }));
        common::turn_until(|| receiver.try_recv().is_ok()).await;
        thread.join().unwrap();
    });
}

#[test]
fn a_forbidden_signal_does_no_harm() {
    restricted(Operations::READ).block_on(async {
        let descriptor = eventfd();
        let other = descriptor.try_clone().unwrap();
        let eventfd = Fd::new(descriptor).unwrap();
        eventfd.signal();
        common::yield_turns(2).await;
        let error = rustix::io::read(&other, &mut [0u8; 8]).unwrap_err();
        assert_eq!(error, rustix::io::Errno::AGAIN, "nothing was written");
    });
}
