//! Transfers that are polled for. Few devices of few hosts can do that; what an executor does with the others is the
//! same everywhere, and each test here holds for both.

mod common;

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::pin::pin;

use common::poll_once;
use executor::{
    Config, DirectIo, DriverChoice, Error, Executor, Fd, IoBuf, KernelThread, Operations,
    Restrictions, Slice, Submission,
};

const BLOCK: usize = 4096;

fn executors() -> Vec<Executor> {
    let thread = Submission::ByKernelThread(KernelThread::default());
    let operations = Operations::READ | Operations::SYNC;
    let mut executors = Vec::new();
    for submission in [Submission::BySystemCall, thread] {
        for restrictions in [None, Some(Restrictions { operations })] {
            let direct_io = DirectIo::Polled;
            let config = Config { submission, direct_io, restrictions, ..Config::default() };
            executors.push(Executor::new(&config).expect("a second ring"));
        }
    }
    executors
}

/// A file for direct I/O, of a block of sevens.
fn direct_file() -> OwnedFd {
    let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a file");
    file.write_all(&[7; BLOCK]).expect("written");
    let mut options = File::options();
    let file = options.read(true).write(true).custom_flags(libc::O_DIRECT).open(file.path());
    file.expect("a file system with direct I/O, which these tests need").into()
}

/// A block at an address that suits direct I/O.
fn block() -> Slice<Vec<u8>> {
    let memory = vec![0; 2 * BLOCK];
    let begin = memory.as_ptr().align_offset(BLOCK);
    memory.slice(begin..begin + BLOCK)
}

#[test]
fn a_transfer_is_done_or_refused_and_the_rest_goes_on_by_the_other_ring() {
    for mut executor in executors() {
        executor.block_on(async {
            let file = Fd::polled(direct_file()).unwrap();
            for _ in 0..100 {
                let (result, read) = file.read_at(block(), 0).await;
                match result {
                    Ok(count) => assert_eq!((count, read.into_inner().contains(&7)), (BLOCK, true)),
                    Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP)),
                }
                file.fdatasync().await.unwrap();
            }
        });
    }
}

#[test]
fn what_nobody_waits_for_completes_before_the_executor_ends() {
    for mut executor in executors() {
        let kept = executor.block_on(async {
            let file = Fd::polled(direct_file()).unwrap();
            for _ in 0..1000 {
                let mut read = pin!(file.read_at(block(), 0));
                assert!(poll_once(read.as_mut()).is_pending());
            }
            file
        });
        drop(executor);
        drop(kept);
    }
}

#[test]
fn an_executor_without_such_a_ring_polls_for_no_file() {
    let config = Config { driver: DriverChoice::Uring, ..Config::default() };
    Executor::new(&config).unwrap().block_on(async {
        Fd::polled(direct_file()).expect_err("there is one ring");
    });
    let driver = DriverChoice::Epoll;
    let config = Config { driver, direct_io: DirectIo::Polled, ..Config::default() };
    assert!(matches!(Executor::new(&config), Err(Error::NoRing)));
}
