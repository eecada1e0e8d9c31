//! Where a seccomp policy forbids `io_uring`, as container runtimes do: one warning, then epoll.
//!
//! A program of its own, since the policy and the count of warnings are the process's.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use executor::{Config, DriverChoice, DriverKind, Error, Executor, Fd, KernelThread, Submission};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::Level::Warn {
            WARNINGS.lock().unwrap().push(record.args().to_string());
        }
    }
    fn flush(&self) {}
}

fn main() {
    log::set_logger(&Recorder).unwrap();
    log::set_max_level(log::LevelFilter::Warn);

    forbid_io_uring(libc::EPERM as u32);
    for _ in 0..3 {
        let mut executor = Executor::new(&Config::default()).expect("the epoll driver");
        assert_eq!(executor.driver(), DriverKind::Epoll);
        assert_eq!(executor.block_on(ping()), b"ping");
    }
    let warnings = std::mem::take(&mut *WARNINGS.lock().unwrap());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("io_uring") && warnings[0].contains("epoll"), "{warnings:?}");
    assert_eq!(warnings[0].lines().count(), 1, "{warnings:?}");

    let config = Config { driver: DriverChoice::Uring, ..Config::default() };
    let error = Executor::new(&config).expect_err("a ring in spite of the policy");
    let Error::RingSetup { source, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(source.raw_os_error(), Some(libc::EPERM));
    let submission = Submission::ByKernelThread(KernelThread::default());
    let error = Executor::new(&Config { submission, ..Config::default() });
    let error = error.expect_err("nobody else has a thread of the kernel");
    assert!(matches!(error, Error::RingSetup { .. }), "{error:?}");
    println!("test where_io_uring_is_forbidden_epoll_serves_after_one_warning ... ok");
}

fn forbid_io_uring(errno: u32) {
    let rules = BTreeMap::from([(libc::SYS_io_uring_setup, Vec::new())]);
    let architecture = std::env::consts::ARCH.try_into().expect("an architecture seccomp knows");
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), architecture)
            .expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    seccompiler::apply_filter(&program).expect("seccomp, which this test needs");
}

async fn ping() -> Vec<u8> {
    let (left, right) = UnixStream::pair().unwrap();
    let (left, right) = (Fd::new(left).unwrap(), Fd::new(right).unwrap());
    let reader = executor::spawn(async move { left.read(Vec::with_capacity(4)).await });
    right.write("ping").await.0.unwrap();
    let (result, bytes) = reader.await;
    assert_eq!(result.unwrap(), 4);
    bytes
}
