//! The executor: its two drivers beside plain system calls.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use executor::{Config, DriverChoice, Executor, Fd, RecvFlags, SendFlags};

use super::error::BenchError;
use super::trial::{Trial, TrialResults, Way, run_trials, timed};
use crate::folder::Folder;

const BLOCK: usize = 4096;
/// All of them stay in the page cache.
const BLOCKS: u64 = 4096;
const READS: u64 = 20_000;
const TASKS: u64 = 100_000;
const ROUND_TRIPS: u64 = 10_000;
const SLEEPS: u64 = 10_000;
const SLEEPERS: u64 = 1000;
const DRIVERS: [(&str, DriverChoice); 2] =
    [("io_uring", DriverChoice::Uring), ("epoll", DriverChoice::Epoll)];

/// Measures.
pub fn run_executor(rounds: u32, progress: &dyn Fn(&str)) -> Result<TrialResults, BenchError> {
    let folder = Folder::create().map_err(BenchError::host("make a folder for a file"))?;
    let path = folder.file("blocks");
    fs::write(&path, vec![1; BLOCK * BLOCKS as usize])
        .and_then(|()| File::open(&path))
        .map(Rc::new)
        .map_err(|source| BenchError::File { path: path.clone(), source })
        .and_then(|file| run_trials(trials(&file), rounds, progress))
}

fn trials(file: &Rc<File>) -> Vec<Trial<'static>> {
    let reads = |depth: u64| {
        let file = Rc::clone(file);
        move |driver| {
            let file = Rc::clone(&file);
            move |count| reads(driver, &file, depth, count)
        }
    };
    let plain = Rc::clone(file);
    vec![
        Trial {
            what: "a task that ends at once".into(),
            operations: TASKS,
            ways: by_driver(|driver| move |count| tasks(driver, count)),
        },
        Trial {
            what: "4 KiB read, one at a time".into(),
            operations: READS,
            ways: with(by_driver(reads(1)), Way::new("pread", move |count| preads(&plain, count))),
        },
        Trial {
            what: "4 KiB read, 32 at a time".into(),
            operations: READS,
            ways: by_driver(reads(32)),
        },
        Trial {
            what: "a byte to a task and back".into(),
            operations: ROUND_TRIPS,
            ways: by_driver(|driver| move |count| round_trips(driver, count)),
        },
        Trial {
            what: "a sleep: processor time".into(),
            operations: SLEEPS,
            ways: by_driver(|driver| move |count| sleeps(driver, count)),
        },
    ]
}

fn by_driver<R>(way: impl Fn(DriverChoice) -> R) -> Vec<Way<'static>>
where
    R: FnMut(u64) -> Result<Duration, BenchError> + 'static,
{
    DRIVERS.iter().map(|(name, driver)| Way::new(*name, way(*driver))).collect()
}

fn with(mut ways: Vec<Way<'static>>, another: Way<'static>) -> Vec<Way<'static>> {
    ways.push(another);
    ways
}

fn on<T>(driver: DriverChoice, work: impl Future<Output = io::Result<T>>) -> Result<T, BenchError> {
    let failed = BenchError::host("run tasks");
    let config = Config { driver, ..Config::default() };
    let mut executor = Executor::new(&config).map_err(|error| failed(io::Error::other(error)))?;
    executor.block_on(work).map_err(failed)
}

fn tasks(driver: DriverChoice, count: u64) -> Result<Duration, BenchError> {
    on(driver, async move {
        let start = Instant::now();
        for number in 0..count {
            executor::spawn(async move { std::hint::black_box(number) }).await;
        }
        Ok(start.elapsed())
    })
}

/// The block that comes after so many others: all of them, in an order without a pattern that the kernel knows.
fn offset(number: u64) -> u64 {
    number.wrapping_mul(2_654_435_761) % BLOCKS * BLOCK as u64
}

fn reads(
    driver: DriverChoice,
    file: &File,
    depth: u64,
    count: u64,
) -> Result<Duration, BenchError> {
    on(driver, async move {
        let file = Rc::new(Fd::new(file.try_clone()?)?);
        let start = Instant::now();
        let read = |first: u64| {
            let file = Rc::clone(&file);
            executor::spawn(async move {
                let mut buffer = vec![0; BLOCK];
                for number in (first..count).step_by(depth as usize) {
                    let (result, same) = file.read_at(buffer, offset(number)).await;
                    result?;
                    buffer = same;
                }
                io::Result::Ok(())
            })
        };
        let tasks: Vec<_> = (0..depth).map(read).collect();
        for task in tasks {
            task.await?;
        }
        Ok(start.elapsed())
    })
}

fn preads(file: &File, count: u64) -> Result<Duration, BenchError> {
    let mut buffer = [0; BLOCK];
    let mut result = Ok(());
    let time = timed(|| {
        result = (0..count).try_for_each(|number| file.read_exact_at(&mut buffer, offset(number)));
    });
    result.map(|()| time).map_err(BenchError::host("read a file"))
}

fn round_trips(driver: DriverChoice, count: u64) -> Result<Duration, BenchError> {
    on(driver, async move {
        let (here, there) = UnixStream::pair()?;
        here.set_nonblocking(true)?;
        there.set_nonblocking(true)?;
        let (here, there) = (Fd::new(here)?, Fd::new(there)?);
        let echo = executor::spawn(async move {
            let mut byte = vec![0; 1];
            for _ in 0..count {
                byte = receive(&there, byte).await?;
                byte = send(&there, byte).await?;
            }
            io::Result::Ok(())
        });
        let start = Instant::now();
        let mut byte = vec![1; 1];
        for _ in 0..count {
            byte = send(&here, byte).await?;
            byte = receive(&here, byte).await?;
        }
        let time = start.elapsed();
        echo.await?;
        Ok(time)
    })
}

async fn send(socket: &Fd, byte: Vec<u8>) -> io::Result<Vec<u8>> {
    let (result, byte) = socket.send(byte, SendFlags::empty()).await;
    result.map(|_| byte)
}

async fn receive(socket: &Fd, byte: Vec<u8>) -> io::Result<Vec<u8>> {
    let (result, byte) = socket.recv(byte, RecvFlags::empty()).await;
    result.map(|_| byte)
}

/// Many at the same time; what counts is the time that this thread has a processor.
fn sleeps(driver: DriverChoice, count: u64) -> Result<Duration, BenchError> {
    on(driver, async move {
        let start = thread_time();
        let sleeper = |sleeper: u64| {
            executor::spawn(async move {
                for turn in 0..count / SLEEPERS {
                    let more = offset(sleeper + turn) % 4000;
                    executor::sleep(Duration::from_micros(1000 + more)).await;
                }
            })
        };
        let tasks: Vec<_> = (0..SLEEPERS).map(sleeper).collect();
        for task in tasks {
            task.await;
        }
        Ok(thread_time().saturating_sub(start))
    })
}

/// Time that the calling thread had a processor.
fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
