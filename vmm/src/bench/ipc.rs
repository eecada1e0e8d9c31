//! Messages: the channels of actors beside what the standard library and the kernel have.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use executor::{Config, Executor};
use ipc::link::{LinkConfig, LinkEnd, pair};
use ipc::{Deadline, Receiver, Reply, Sender};
use serde::{Deserialize, Serialize};

use super::error::BenchError;
use super::trial::{Trial, TrialResults, Way, run_trials, timed};

/// Depth of the channels, as a device's would be.
const CAPACITY: usize = 64;
const MESSAGES: u64 = 200_000;
const CALLS: u64 = 10_000;
const OURS: &str = "vmm";

/// A question with a place for its answer.
#[derive(Debug, Serialize, Deserialize)]
struct Double {
    number: u64,
    reply: Reply<u64>,
}

/// Measures. The caller has one thread: a process is forked.
pub fn run_ipc(rounds: u32, progress: &dyn Fn(&str)) -> Result<TrialResults, BenchError> {
    let doing = "call a process";
    let (ours, theirs) = pair(&LinkConfig::default())
        .map_err(|error| BenchError::host(doing)(io::Error::other(error)))?;
    let (mut pipes, far_pipes) = pipes().map_err(BenchError::host(doing))?;
    let mut first = Child::fork(|| serve_link(theirs)).map_err(BenchError::host(doing))?;
    let mut second = Child::fork(|| serve_pipes(far_pipes)).map_err(BenchError::host(doing))?;
    let opened = ours.open().map_err(|error| BenchError::host(doing)(io::Error::other(error)))?;
    let trials = vec![
        Trial {
            what: "a message to a task".into(),
            operations: MESSAGES,
            ways: vec![Way::new(OURS, to_a_task)],
        },
        Trial {
            what: "a message to a thread".into(),
            operations: MESSAGES,
            ways: vec![
                Way::new(OURS, to_a_thread),
                Way::new("std::sync::mpsc", to_a_thread_by_std),
            ],
        },
        Trial {
            what: "a call of a thread".into(),
            operations: CALLS,
            ways: vec![
                Way::new(OURS, call_a_thread),
                Way::new("std::sync::mpsc", call_a_thread_by_std),
            ],
        },
        Trial {
            what: "a call of a process".into(),
            operations: CALLS,
            ways: vec![
                Way::new(OURS, |count| call(&opened.sender, count)),
                Way::new("a pipe each way", |count| {
                    call_by_pipes(&mut pipes, count).map_err(BenchError::host(doing))
                }),
            ],
        },
    ];
    let results = run_trials(trials, rounds, progress);
    first.end();
    second.end();
    results
}

fn far() -> Deadline {
    Deadline::after(Duration::from_mins(10))
}

fn lost<E>(_: E) -> BenchError {
    BenchError::host("pass messages")(io::ErrorKind::BrokenPipe.into())
}

fn to_a_task(count: u64) -> Result<Duration, BenchError> {
    let mut executor = Executor::new(&Config::default())
        .map_err(|error| BenchError::host("make an executor")(io::Error::other(error)))?;
    let (sender, mut receiver) = ipc::channel::<u64>(CAPACITY);
    let mut result = Ok(());
    let time = timed(|| {
        result = executor.block_on(async {
            executor::spawn(async move {
                for number in 0..count {
                    if sender.send(number).await.is_err() {
                        return;
                    }
                }
            })
            .detach();
            for _ in 0..count {
                receiver.recv().await.map_err(lost)?;
            }
            Ok(())
        });
    });
    result.map(|()| time)
}

fn to_a_thread(count: u64) -> Result<Duration, BenchError> {
    let (sender, mut receiver) = ipc::channel::<u64>(CAPACITY);
    between_threads(
        move || (0..count).try_for_each(|number| sender.send_blocking(number, far())).map_err(lost),
        || (0..count).try_for_each(|_| receiver.recv_blocking(far()).map(drop)).map_err(lost),
    )
}

fn to_a_thread_by_std(count: u64) -> Result<Duration, BenchError> {
    let (sender, receiver) = mpsc::sync_channel::<u64>(CAPACITY);
    between_threads(
        move || (0..count).try_for_each(|number| sender.send(number)).map_err(lost),
        || (0..count).try_for_each(|_| receiver.recv().map(drop)).map_err(lost),
    )
}

fn call_a_thread(count: u64) -> Result<Duration, BenchError> {
    let (sender, receiver) = ipc::channel::<Double>(CAPACITY);
    between_threads(
        move || {
            serve(receiver);
            Ok(())
        },
        move || call(&sender, count).map(drop),
    )
}

fn call_a_thread_by_std(count: u64) -> Result<Duration, BenchError> {
    let (ask, questions) = mpsc::sync_channel::<u64>(1);
    let (tell, answers) = mpsc::sync_channel::<u64>(1);
    between_threads(
        move || {
            while let Ok(number) = questions.recv() {
                tell.send(number * 2).map_err(lost)?;
            }
            Ok(())
        },
        move || {
            (0..count).try_for_each(|number| {
                ask.send(number).map_err(lost)?;
                answers.recv().map(drop).map_err(lost)
            })
        },
    )
}

/// One on a thread of its own, the other here.
fn between_threads(
    there: impl FnOnce() -> Result<(), BenchError> + Send,
    here: impl FnOnce() -> Result<(), BenchError>,
) -> Result<Duration, BenchError> {
    let mut result = Ok(());
    let time = timed(|| {
        result = thread::scope(|scope| {
            let other = scope.spawn(there);
            let own = here();
            own.and(other.join().map_err(lost)?)
        });
    });
    result.map(|()| time)
}

fn serve(mut receiver: Receiver<Double>) {
    while let Ok(Double { number, reply }) = receiver.recv_blocking(far()) {
        reply.send(number * 2);
    }
}

fn call(sender: &Sender<Double>, count: u64) -> Result<Duration, BenchError> {
    let mut result = Ok(());
    let time = timed(|| {
        result = (0..count).try_for_each(|number| {
            sender.call_blocking(|reply| Double { number, reply }, far()).map(drop)
        });
    });
    result.map(|()| time).map_err(lost)
}

fn serve_link(end: LinkEnd<(), Double>) {
    if let Ok(opened) = end.open() {
        serve(opened.receiver);
    }
}

/// One end of two pipes.
struct Pipes {
    input: PipeReader,
    output: PipeWriter,
}

fn pipes() -> io::Result<(Pipes, Pipes)> {
    let (answers, tell) = io::pipe()?;
    let (questions, ask) = io::pipe()?;
    Ok((Pipes { input: answers, output: ask }, Pipes { input: questions, output: tell }))
}

fn serve_pipes(mut pipes: Pipes) {
    let mut number = [0; 8];
    while pipes.input.read_exact(&mut number).is_ok() {
        let double = u64::from_ne_bytes(number).wrapping_mul(2);
        if pipes.output.write_all(&double.to_ne_bytes()).is_err() {
            return;
        }
    }
}

fn call_by_pipes(pipes: &mut Pipes, count: u64) -> io::Result<Duration> {
    let mut result = Ok(());
    let time = timed(|| {
        result = (0..count).try_for_each(|number| {
            pipes.output.write_all(&number.to_ne_bytes())?;
            pipes.input.read_exact(&mut [0; 8])
        });
    });
    result.map(|()| time)
}

/// A process of ours. It holds both ends of pipes, so it does not end with its caller's: it is killed.
struct Child(libc::pid_t);

impl Child {
    /// A process that runs `body` and nothing else.
    fn fork(body: impl FnOnce()) -> io::Result<Self> {
        // SAFETY: this process has one thread, and the child leaves without running what belongs to it.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let parent_died = rustix::process::Signal::KILL;
                let _ = rustix::process::set_parent_process_death_signal(Some(parent_died));
                body();
                // SAFETY: ends the process without any destructor.
                unsafe { libc::_exit(0) }
            }
            child => Ok(Self(child)),
        }
    }

    fn end(&mut self) {
        let child = std::mem::replace(&mut self.0, 0);
        if child > 0 {
            // SAFETY: our child, which nobody has waited for yet; its status is of no interest.
            unsafe {
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, std::ptr::null_mut(), 0);
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}
