//! What one operation costs: nanoseconds, and system calls of the driver per operation.
//!
//! `cargo run --release -p executor --example ring_cost [uring|epoll]`

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use executor::{Config, DriverChoice, Executor, Fd, Op, OpSet, Stats, TaskGroup};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let driver = match std::env::args().nth(1).as_deref() {
        None | Some("uring") => DriverChoice::Uring,
        Some("epoll") => DriverChoice::Epoll,
        Some(other) => return Err(format!("unknown driver {other}").into()),
    };
    let mut executor = Executor::new(&Config { driver, ..Config::default() })?;
    println!("driver {:?}", executor.driver());
    executor.block_on(run())
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut file = unnamed_file()?;
    for _ in 0..BLOCKS {
        file.write_all(&[7; BLOCK])?;
    }
    let file = Fd::new(file)?;
    for depth in [1, 32, 128] {
        let operations = 200_000;
        let meter = Meter::start(&format!("file reads by OpSet, depth {depth}"));
        read_by_set(&file, depth, operations).await;
        meter.stop(operations);
    }
    for depth in [1, 32, 128] {
        let operations = 200_000;
        let meter = Meter::start(&format!("file reads by tasks, depth {depth}"));
        read_by_tasks(&file, depth, operations).await;
        meter.stop(operations);
    }
    ping_pong(100_000).await?;
    notifications(100_000).await?;
    spawn(1_000_000).await;
    timers(1_000_000).await;
    Ok(())
}

fn unnamed_file() -> std::io::Result<std::fs::File> {
    let path = std::env::temp_dir().join(format!("ring_cost.{}", std::process::id()));
    let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

struct Meter {
    name: String,
    started: Instant,
    before: Stats,
}

impl Meter {
    fn start(name: &str) -> Self {
        let before = executor::stats().unwrap_or_default();
        Meter { name: name.to_owned(), started: Instant::now(), before }
    }

    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    fn stop(self, operations: u64) {
        let elapsed = self.started.elapsed();
        let after = executor::stats().unwrap_or_default();
        println!(
            "{:<36} {:>8.1} ns  {:>7.4} system calls",
            self.name,
            elapsed.as_nanos() as f64 / operations as f64,
            (after.system_calls - self.before.system_calls) as f64 / operations as f64,
        );
    }
}

async fn read_by_set(file: &Fd, depth: usize, operations: u64) {
    let mut set: OpSet<Box<[u8]>> = OpSet::with_capacity(depth);
    let submit = |set: &mut OpSet<Box<[u8]>>, mut buffer: Box<[u8]>, number: u64| {
        // SAFETY: the payload is the buffer, whose block stays where it is.
        let op = unsafe {
            Op::read(file, buffer.as_mut_ptr(), BLOCK as u32, number % BLOCKS * BLOCK as u64)
        };
        set.submit(op, buffer).expect("a free place");
    };
    let mut submitted = 0;
    while submitted < (depth as u64).min(operations) {
        submit(&mut set, vec![0; BLOCK].into(), submitted);
        submitted += 1;
    }
    for _ in 0..operations {
        let (buffer, result) = set.next().await;
        assert_eq!(result.expect("a read"), BLOCK as u32);
        if submitted < operations {
            submit(&mut set, buffer, submitted);
            submitted += 1;
        }
    }
}

async fn read_by_tasks(file: &Fd, depth: u64, operations: u64) {
    let group = TaskGroup::new();
    let next = Rc::new(Cell::new(0));
    for _ in 0..depth {
        let (file, next) = (file.clone(), Rc::clone(&next));
        group.spawn(async move {
            let mut buffer = vec![0; BLOCK];
            while next.get() < operations {
                let number = next.replace(next.get() + 1);
                let (result, back) = file.read_at(buffer, number % BLOCKS * BLOCK as u64).await;
                assert_eq!(result.expect("a read"), BLOCK);
                buffer = back;
            }
        });
    }
    group.wait().await;
}

async fn ping_pong(rounds: u64) -> std::io::Result<()> {
    let (left, right) = std::os::unix::net::UnixStream::pair()?;
    let (left, right) = (Fd::new(left)?, Fd::new(right)?);
    let echo = executor::spawn(async move {
        let mut buffer = vec![0; 64];
        loop {
            let (result, mut back) = right.read(buffer).await;
            match result {
                Ok(0) | Err(_) => return,
                Ok(count) => back.truncate(count),
            }
            let (result, back) = right.write(back).await;
            if result.is_err() {
                return;
            }
            buffer = back;
        }
    });
    let meter = Meter::start("socket ping-pong, round trip");
    let mut buffer = vec![1; 64];
    for _ in 0..rounds {
        let (result, back) = left.write(buffer).await;
        result?;
        let (result, back) = left.read(back).await;
        result?;
        buffer = back;
    }
    meter.stop(rounds);
    echo.cancel();
    Ok(())
}

async fn notifications(rounds: u64) -> std::io::Result<()> {
    let eventfd = || {
        rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)
            .map_err(std::io::Error::from)
            .and_then(Fd::new)
    };
    let (kick, call) = (eventfd()?, eventfd()?);
    let echo = executor::spawn({
        let (kick, call) = (kick.clone(), call.clone());
        async move {
            let mut kicks = kick.notifications();
            while kicks.next().await.is_ok() {
                call.signal();
            }
        }
    });
    let meter = Meter::start("eventfd there and back");
    let mut calls = call.notifications();
    for _ in 0..rounds {
        kick.signal();
        calls.next().await?;
    }
    meter.stop(rounds);
    echo.cancel();
    Ok(())
}

async fn spawn(tasks: u64) {
    let meter = Meter::start("spawn and join, one by one");
    for number in 0..tasks {
        assert_eq!(executor::spawn(async move { number }).await, number);
    }
    meter.stop(tasks);
    let meter = Meter::start("spawn and join, 1000 at a time");
    for _ in 0..tasks / 1000 {
        let handles: Vec<_> =
            (0..1000).map(|number| executor::spawn(async move { number })).collect();
        for handle in handles {
            handle.await;
        }
    }
    meter.stop(tasks);
}

async fn timers(timers: u64) {
    let meter = Meter::start("timeout set and cancelled");
    for _ in 0..timers {
        let done = executor::timeout(Duration::from_secs(1), executor::yield_now()).await;
        assert!(done.is_ok());
    }
    meter.stop(timers);
    let meter = Meter::start("1000 sleeps of 1 to 2 ms at once");
    let group = TaskGroup::new();
    for number in 0..1000 {
        group.spawn(executor::sleep(Duration::from_micros(1000 + number)));
    }
    group.wait().await;
    meter.stop(1000);
}
