//! The round trip between a thread and an actor in another process, against other ways to do it,
//! in one run.
//!
//! The actor is set up as a machine sets up the process of a disk, without the filter of its system
//! calls: it makes none that counts while calls follow each other. What it costs to have it look for
//! the next call is shown by calls that are too far apart for that.
//!
//! The request is a read of four bytes from a device's configuration space, as a vCPU makes it.
//! Each other process is forked while this one has one thread.
//!
//! `cargo bench -p ipc --bench round_trip [-- --json]`

mod common;

use std::cell::Cell;
use std::hint::black_box;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use common::{Case, compare, is_for_programs, timed};
use executor::{Config, Executor, Operations, Restrictions};
use ipc::link::{LinkConfig, LinkEnd, Looking, pair};
use ipc::{Deadline, Receiver, Reply, Sender};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

const ROUNDS: usize = 9;
const ACTOR: &str = "link, actor as in a machine";
const PIPES: &str = "pipe pair, postcard";
const SOCKETS: &str = "SOCK_SEQPACKET, JSON";
/// Between two calls of a driver that does something else, too.
const PAUSE: Duration = Duration::from_micros(100);

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    ReadConfig { offset: u32, length: u32, reply: Reply<Vec<u8>> },
    WriteConfig { offset: u32, data: Vec<u8>, reply: Reply<()> },
}

/// The same without a reply port, for transports that know no calls.
#[derive(Debug, Serialize, Deserialize)]
enum Plain {
    ReadConfig { offset: u32, length: u32 },
    WriteConfig { offset: u32, data: Vec<u8> },
}

fn far() -> Deadline {
    Deadline::after(Duration::from_mins(10))
}

fn answer(offset: u32, length: u32) -> Vec<u8> {
    (offset..offset + length).map(|byte| byte as u8).collect()
}

fn handle(request: Request) {
    match request {
        Request::ReadConfig { offset, length, reply } => reply.send(answer(offset, length)),
        Request::WriteConfig { reply, .. } => reply.send(()),
    }
}

fn handle_plain(request: &Plain) -> Vec<u8> {
    match request {
        Plain::ReadConfig { offset, length } => answer(*offset, *length),
        Plain::WriteConfig { .. } => Vec::new(),
    }
}

/// Calls the actor behind `sender` again and again.
fn call(sender: &Sender<Request>, count: u32) -> Duration {
    let deadline = far();
    timed(|| {
        for offset in 0..count {
            let read = |reply| Request::ReadConfig { offset: offset % 64, length: 4, reply };
            black_box(sender.call_blocking(read, deadline).expect("an answer"));
        }
    })
}

/// Calls the actor with pauses, in which the thread works on, as a vCPU does. Only the calls count.
fn call_with_pauses(sender: &Sender<Request>, count: u32) -> Duration {
    (0..count)
        .map(|_| {
            let pause = Instant::now();
            while pause.elapsed() < PAUSE {
                std::hint::spin_loop();
            }
            call(sender, 1)
        })
        .sum()
}

/// The time that a process has had a processor.
fn processor_time(process: libc::pid_t) -> Duration {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both are valid for the calls.
    let read = unsafe {
        libc::clock_getcpuclockid(process, &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    assert!(read, "the clock of a child");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Forks a process that runs `body` and exits.
fn fork(body: impl FnOnce()) -> libc::pid_t {
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        -1 => panic!("cannot fork: {}", std::io::Error::last_os_error()),
        0 => {
            body();
            // SAFETY: ends the process without what belongs to the parent.
            unsafe { libc::_exit(0) }
        }
        child => child,
    }
}

fn serve_blocking(mut receiver: Receiver<Request>) {
    let deadline = far();
    while let Ok(request) = receiver.recv_blocking(deadline) {
        handle(request);
    }
}

/// The executor of a disk's process.
fn actor_config() -> Config {
    let operations = Operations::READ | Operations::WRITE | Operations::SYNC | Operations::ALLOCATE;
    Config { restrictions: Some(Restrictions { operations }), ..Config::default() }
}

fn serve_tasks(end: LinkEnd<(), Request>, looking: Looking) {
    let mut executor = Executor::new(&actor_config()).expect("an executor");
    executor.block_on(async move {
        let mut opened = end.open().expect("an end");
        executor::spawn(opened.link.drive()).detach();
        let _looking = (looking == Looking::WhileItPays).then(|| opened.link.look_when_idle());
        while let Ok(request) = opened.receiver.recv().await {
            handle(request);
        }
    });
}

struct Pipes {
    input: PipeReader,
    output: PipeWriter,
}

fn pipes() -> (Pipes, Pipes) {
    let (first_input, second_output) = std::io::pipe().expect("a pipe");
    let (second_input, first_output) = std::io::pipe().expect("a pipe");
    let first = Pipes { input: first_input, output: first_output };
    (first, Pipes { input: second_input, output: second_output })
}

fn serve_pipes(mut pipes: Pipes) {
    let mut buffer = [0; 4096];
    while let Ok(length) = pipes.input.read(&mut buffer)
        && length > 0
    {
        let request = postcard::from_bytes(&buffer[..length]).expect("a request");
        let answer = postcard::to_stdvec(&handle_plain(&request)).expect("an answer");
        pipes.output.write_all(&answer).expect("the caller");
    }
}

fn call_pipes(pipes: &mut Pipes, count: u32) -> Duration {
    let mut buffer = [0; 4096];
    timed(|| {
        for offset in 0..count {
            let request = Plain::ReadConfig { offset: offset % 64, length: 4 };
            let request = postcard::to_stdvec(&request).expect("a request");
            pipes.output.write_all(&request).expect("the actor");
            let length = pipes.input.read(&mut buffer).expect("the actor");
            black_box(postcard::from_bytes::<Vec<u8>>(&buffer[..length]).expect("an answer"));
        }
    })
}

fn serve_socket(socket: &OwnedFd) {
    let mut buffer = [0; 4096];
    while let Ok((length, _)) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())
        && length > 0
    {
        let request = serde_json::from_slice(&buffer[..length]).expect("a request");
        let answer = serde_json::to_vec(&handle_plain(&request)).expect("an answer");
        rustix::net::send(socket, &answer, SendFlags::empty()).expect("the caller");
    }
}

fn call_socket(socket: &OwnedFd, count: u32) -> Duration {
    let mut buffer = [0; 4096];
    timed(|| {
        for offset in 0..count {
            let request = Plain::ReadConfig { offset: offset % 64, length: 4 };
            let request = serde_json::to_vec(&request).expect("a request");
            rustix::net::send(socket, &request, SendFlags::empty()).expect("the actor");
            let (length, _) =
                rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()).expect("the actor");
            let answer: Vec<u8> = serde_json::from_slice(&buffer[..length]).expect("an answer");
            black_box(answer);
        }
    })
}

fn link() -> (LinkEnd<Request, ()>, LinkEnd<(), Request>) {
    pair(&LinkConfig::default()).expect("a link")
}

fn main() {
    // All processes first: there must be one thread until then. Those that sleep cost nothing.
    let (link_caller, link_actor) = link();
    let (sleep_caller, sleep_actor) = link();
    let (look_caller, look_actor) = link();
    let (mut pipes_caller, pipes_actor) = pipes();
    let (socket_caller, socket_actor) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("a socket pair");
    let mut children = Vec::new();
    let own = [
        pipes_caller.input.as_raw_fd(),
        pipes_caller.output.as_raw_fd(),
        socket_caller.as_raw_fd(),
    ];
    let forget_ours = || {
        for fd in own {
            // SAFETY: in a forked process, which does not use them.
            unsafe { libc::close(fd) };
        }
    };
    children.push(fork(|| serve_blocking(link_actor.open().expect("an end").receiver)));
    let sleeper = fork(|| serve_tasks(sleep_actor, Looking::Never));
    let looker = fork(|| serve_tasks(look_actor, Looking::for_this_host()));
    children.extend([sleeper, looker]);
    children.push(fork(|| {
        forget_ours();
        serve_pipes(pipes_actor);
    }));
    children.push(fork(|| {
        forget_ours();
        serve_socket(&socket_actor);
    }));
    drop(socket_actor);

    let link_caller = link_caller.open().expect("an end");
    let sleep_caller = sleep_caller.open().expect("an end");
    let look_caller = look_caller.open().expect("an end");
    let (local, local_receiver) = ipc::channel(16);
    let thread = std::thread::spawn(move || serve_blocking(local_receiver));
    let figures = compare(
        "round trip of a 4-byte configuration read",
        4000,
        ROUNDS,
        vec![
            Case::new(ACTOR, |count| call(&look_caller.sender, count)),
            Case::new("link, actor that never looks", |count| call(&sleep_caller.sender, count)),
            Case::new("link, actor on a thread", |count| call(&link_caller.sender, count)),
            Case::new("in-process channel, actor on a thread", |count| call(&local, count)),
            Case::new(PIPES, |count| call_pipes(&mut pipes_caller, count)),
            Case::new(SOCKETS, |count| call_socket(&socket_caller, count)),
        ],
    );
    if !is_for_programs() {
        let of = |name| {
            let figure = figures.iter().find(|figure| figure.name == name);
            figure.expect("a case").median_ns
        };
        for other in [SOCKETS, PIPES] {
            println!("{ACTOR}: {:.1} times as fast as {other}", of(other) / of(ACTOR));
        }
        println!();
    }
    let spent = [Cell::new(Duration::ZERO), Cell::new(Duration::ZERO)];
    let paused = |sender: &Sender<Request>, process, spent: &Cell<Duration>, count| {
        let before = processor_time(process);
        let time = call_with_pauses(sender, count);
        spent.set(spent.get() + processor_time(process).saturating_sub(before));
        time
    };
    let (count, rounds) = (500, ROUNDS);
    compare(
        "the same with 100 us between calls",
        count,
        rounds,
        vec![
            Case::new(ACTOR, |count| paused(&look_caller.sender, looker, &spent[0], count)),
            Case::new("link, actor that never looks", |count| {
                paused(&sleep_caller.sender, sleeper, &spent[1], count)
            }),
        ],
    );
    let [machine, never] = spent.map(|spent| spent.get() / (count * (rounds as u32 + 1)));
    if !is_for_programs() {
        println!(
            "processor time of the actor for such a call: {machine:?}, never looking {never:?}"
        );
    }
    drop((link_caller, sleep_caller, look_caller, local, pipes_caller, socket_caller));
    thread.join().expect("the actor");
    for child in children {
        // SAFETY: our child, whose status is of no interest.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }
}
