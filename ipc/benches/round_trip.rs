//! The round trip between a thread and an actor in another process, against other ways to do it,
//! in one run.
//!
//! The request is a read of four bytes from a device's configuration space, as a vCPU makes it.
//! Each other process is forked while this one has one thread.
//!
//! `cargo bench -p ipc --bench round_trip [-- --json]`

mod common;

use std::hint::black_box;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use common::{Case, compare, timed};
use ipc::link::{LinkConfig, LinkEnd, pair};
use ipc::{Deadline, Receiver, Reply, Sender};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

const ROUNDS: usize = 9;

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

fn serve_tasks(end: LinkEnd<(), Request>, idle_spin: Duration) {
    let config = executor::Config { idle_spin, ..executor::Config::default() };
    let mut executor = executor::Executor::new(&config).expect("an executor");
    executor.block_on(async move {
        let mut opened = end.open().expect("an end");
        executor::spawn(opened.link.drive()).detach();
        let _looking = (!idle_spin.is_zero()).then(|| opened.link.look_when_idle());
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
    let (task_caller, task_actor) = link();
    let (spin_caller, spin_actor) = link();
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
    children.push(fork(|| serve_tasks(task_actor, Duration::ZERO)));
    children.push(fork(|| serve_tasks(spin_actor, Duration::from_micros(50))));
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
    let task_caller = task_caller.open().expect("an end");
    let spin_caller = spin_caller.open().expect("an end");
    let (local, local_receiver) = ipc::channel(16);
    let thread = std::thread::spawn(move || serve_blocking(local_receiver));
    compare(
        "round trip of a 4-byte configuration read",
        4000,
        ROUNDS,
        vec![
            Case::new("link, actor on a thread", |count| call(&link_caller.sender, count)),
            Case::new("link, actor on an executor that spins", |count| {
                call(&spin_caller.sender, count)
            }),
            Case::new("link, actor on an executor that sleeps", |count| {
                call(&task_caller.sender, count)
            }),
            Case::new("in-process channel, actor on a thread", |count| call(&local, count)),
            Case::new("pipe pair, postcard", |count| call_pipes(&mut pipes_caller, count)),
            Case::new("SOCK_SEQPACKET, JSON", |count| call_socket(&socket_caller, count)),
        ],
    );
    drop((link_caller, task_caller, spin_caller, local, pipes_caller, socket_caller));
    thread.join().expect("the actor");
    for child in children {
        // SAFETY: our child, whose status is of no interest.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }
}
