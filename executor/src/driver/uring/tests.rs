//! Rings that a thread of the kernel takes operations from.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::config::{KernelThread, Submission};

/// The contents of a file: each byte is its place.
const CONTENTS: [u8; 256] = {
    let mut contents = [0; 256];
    let mut place = 0;
    while place < contents.len() {
        contents[place] = place as u8;
        place += 1;
    }
    contents
};

struct Bed {
    driver: Uring,
    file: File,
    buffers: Box<[u8; 256]>,
    completions: VecDeque<Completion>,
}

impl Bed {
    fn new(entries: u32, idle: Duration) -> Self {
        let thread = KernelThread { idle, processor: None };
        let submission = Submission::ByKernelThread(thread);
        let config = Config { entries, submission, ..Config::default() };
        let doorbell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let mut driver = Uring::open(&config, &Arc::new(Shared::new(doorbell)))
            .expect("a ring with a thread, which these tests are about");
        driver.drain();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&CONTENTS).unwrap();
        Bed { driver, file, buffers: Box::new([0; 256]), completions: VecDeque::new() }
    }

    /// Asks for the byte at a place of the file.
    fn read(&mut self, place: u8) {
        let target = Target { fd: self.file.as_fd().as_raw_fd(), file: FileId::Plain };
        let pointer = &raw mut self.buffers[usize::from(place)];
        let operation = Operation::Read { pointer, length: 1, offset: place.into() };
        self.driver.submit(Token::from_bits(place.into()), target, operation);
    }

    /// Waits without a system call until so many operations are complete.
    fn look_for(&mut self, count: usize) {
        while self.completions.len() < count {
            std::hint::spin_loop();
            self.driver.reap(&mut self.completions);
        }
    }

    /// Waits until the thread has gone to sleep.
    fn rest(&mut self) {
        while !self.driver.ring.inner.submission().need_wakeup() {
            std::thread::yield_now();
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for Completion { token, result, .. } in &self.completions {
            let place = token.index as usize;
            assert_eq!((*result, self.buffers[place]), (1, CONTENTS[place]));
        }
    }
}

#[test]
fn a_thread_that_looks_takes_operations_without_a_system_call() {
    let mut bed = Bed::new(8, Duration::from_hours(1));
    let before = bed.driver.system_calls();
    for place in 0..200 {
        bed.read(place);
        bed.driver.flush();
        bed.driver.turn(Wait::No);
        bed.look_for(usize::from(place) + 1);
    }
    assert_eq!(bed.driver.system_calls(), before);
}

#[test]
fn a_thread_that_sleeps_is_woken_once() {
    let mut bed = Bed::new(8, Duration::from_millis(1));
    for (place, wait) in (0..).zip([Wait::No, Wait::Forever, Wait::No, Wait::Forever]) {
        bed.rest();
        let before = bed.driver.system_calls();
        bed.read(place);
        // The same call wakes and waits.
        bed.driver.turn(wait);
        assert_eq!(bed.driver.system_calls(), before + 1);
        bed.look_for(usize::from(place) + 1);
    }
}

#[test]
fn more_operations_than_the_queue_has_room_for_wait_for_the_thread() {
    for idle in [Duration::from_millis(1), Duration::from_hours(1)] {
        let mut bed = Bed::new(2, idle);
        for place in 0..=255 {
            bed.read(place);
        }
        bed.driver.drain();
        assert!(bed.driver.ring.inner.submission().is_empty());
        while bed.completions.len() < 256 {
            bed.driver.turn(Wait::Forever);
            bed.driver.reap(&mut bed.completions);
        }
    }
}

#[test]
fn what_is_cancelled_completes_however_the_thread_is() {
    for idle in [Duration::from_millis(1), Duration::from_hours(1)] {
        let mut bed = Bed::new(8, idle);
        let (pipe, _writer) = rustix::pipe::pipe().unwrap();
        let target = Target { fd: pipe.as_raw_fd(), file: FileId::Plain };
        let token = Token::from_bits(1 << 32 | 7);
        let operation = Operation::Read { pointer: &raw mut bed.buffers[0], length: 1, offset: 0 };
        for round in 1..=10 {
            bed.driver.submit(token, target, operation);
            bed.driver.flush();
            bed.driver.cancel(token, target);
            let mut completions = VecDeque::new();
            while completions.is_empty() {
                bed.driver.turn(Wait::Forever);
                bed.driver.reap(&mut completions);
            }
            assert_eq!(completions[0].result, -libc::ECANCELED, "round {round}");
        }
    }
}

#[test]
fn a_processor_that_is_none_is_refused_with_its_number() {
    let thread = KernelThread { processor: Some(1 << 20), ..KernelThread::default() };
    for driver in [crate::DriverChoice::Auto, crate::DriverChoice::Uring] {
        let submission = Submission::ByKernelThread(thread);
        let config = Config { driver, submission, ..Config::default() };
        let error = crate::Executor::new(&config).expect_err("there is no such processor");
        assert!(matches!(error, Error::KernelThread { processor: Some(1_048_576), .. }));
        assert!(error.to_string().contains("processor 1048576"), "{error}");
    }
}

#[test]
fn without_rings_there_is_no_such_executor() {
    let submission = Submission::ByKernelThread(KernelThread::default());
    let config = Config { driver: crate::DriverChoice::Epoll, submission, ..Config::default() };
    assert!(matches!(crate::Executor::new(&config), Err(Error::NoRing)));
}
