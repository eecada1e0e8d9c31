//! One actor, one script, every placement: a task beside the caller, another thread, another
//! process. Neither the actor nor the script knows which.
//!
//! Without the test harness, because a process may fork only while it has one thread.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use executor::DriverChoice;
use ipc::link::{LinkConfig, LinkDeath, Opened, pair};
use ipc::{
    CallError, Fd, Receiver, RecvBlockingError, RecvError, Reply, SendError, Sender, channel,
};
use serde::{Deserialize, Serialize};
use support::{far, fork, on_driver, on_executor};

/// What the actor is asked.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Put {
        key: String,
        value: Vec<u8>,
        reply: Reply<Option<Vec<u8>>>,
    },
    Get {
        key: String,
        reply: Reply<Option<Vec<u8>>>,
    },
    /// Takes a descriptor and writes all values to it.
    Dump {
        output: Fd,
    },
    /// Gives a descriptor from which all values can be read.
    Open {
        reply: Reply<Fd>,
    },
    /// One more who wants to hear of changes.
    Subscribe {
        events: Sender<Event>,
    },
    /// Makes no sense; the port is dropped.
    Nonsense {
        reply: Reply<u32>,
    },
    /// Never answered and never dropped.
    Keep {
        reply: Reply<u32>,
    },
}

/// What the actor says by itself.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Event {
    Changed { key: String },
}

/// How an actor starts in another process.
#[derive(Debug, Serialize, Deserialize)]
struct Start {
    requests: Receiver<Request>,
    events: Sender<Event>,
}

/// The actor.
async fn store(mut requests: Receiver<Request>, events: Sender<Event>) {
    let mut values = BTreeMap::new();
    let mut subscribers = vec![events];
    let mut kept = Vec::new();
    while let Ok(request) = requests.recv().await {
        match request {
            Request::Put { key, value, reply } => {
                for subscriber in &subscribers {
                    let _ = subscriber.send(Event::Changed { key: key.clone() }).await;
                }
                reply.send(values.insert(key, value));
            }
            Request::Get { key, reply } => reply.send(values.get(&key).cloned()),
            Request::Dump { output } => {
                let mut stream = UnixStream::from(output.into_owned());
                stream.write_all(&values.values().flatten().copied().collect::<Vec<_>>()).unwrap();
            }
            Request::Open { reply } => {
                let (mut here, there) = UnixStream::pair().unwrap();
                here.write_all(&values.values().flatten().copied().collect::<Vec<_>>()).unwrap();
                reply.send(Fd::new(there));
            }
            Request::Subscribe { events } => subscribers.push(events),
            Request::Nonsense { reply } => drop(reply),
            Request::Keep { reply } => kept.push(reply),
        }
    }
}

/// What is expected of it, wherever it is.
async fn script(requests: Sender<Request>, mut events: Receiver<Event>) {
    for round in 0..50_u32 {
        let key = format!("key {}", round % 10);
        let value = round.to_le_bytes().repeat(round as usize);
        let put = |reply| Request::Put { key: key.clone(), value: value.clone(), reply };
        let before = requests.call(put, far()).await.unwrap();
        assert_eq!(before.is_some(), round >= 10);
        assert_eq!(events.recv().await, Ok(Event::Changed { key: key.clone() }));
        let get = |reply| Request::Get { key: key.clone(), reply };
        assert_eq!(requests.call(get, far()).await, Ok(Some(value)));
    }
    let nobody = |reply| Request::Get { key: "nobody".into(), reply };
    assert_eq!(requests.call(nobody, far()).await, Ok(None));
    let refused = requests.call(|reply| Request::Nonsense { reply }, far()).await;
    assert_eq!(refused, Err(CallError::Refused));

    let (mut here, there) = UnixStream::pair().unwrap();
    requests.send(Request::Dump { output: Fd::new(there) }).await.unwrap();
    let opened = requests.call(|reply| Request::Open { reply }, far()).await.unwrap();
    let (mut dumped, mut read) = (Vec::new(), Vec::new());
    here.read_to_end(&mut dumped).unwrap();
    UnixStream::from(opened.into_owned()).read_to_end(&mut read).unwrap();
    assert_eq!(dumped.len(), (40..50).map(|round| round * 4).sum::<usize>());
    assert_eq!(dumped, read);

    let (second_sender, mut second) = channel(2);
    requests.send(Request::Subscribe { events: second_sender }).await.unwrap();
    let put = |reply| Request::Put { key: "last".into(), value: vec![], reply };
    assert_eq!(requests.call(put, far()).await, Ok(None));
    assert_eq!(events.recv().await, Ok(Event::Changed { key: "last".into() }));
    assert_eq!(second.recv().await, Ok(Event::Changed { key: "last".into() }));

    drop(requests);
    assert_eq!(events.recv().await, Err(RecvError::Closed));
    assert_eq!(second.recv().await, Err(RecvError::Closed));
}

/// The same, in short, from a thread without an executor.
fn blocking_script(requests: &Sender<Request>, events: &mut Receiver<Event>) {
    for round in 0..50_u32 {
        let key = format!("key {}", round % 10);
        let value = round.to_le_bytes().repeat(round as usize);
        let put = |reply| Request::Put { key: key.clone(), value: value.clone(), reply };
        requests.call_blocking(put, far()).unwrap();
        assert_eq!(events.recv_blocking(far()), Ok(Event::Changed { key: key.clone() }));
        let get = |reply| Request::Get { key: key.clone(), reply };
        assert_eq!(requests.call_blocking(get, far()), Ok(Some(value)));
    }
    let opened = requests.call_blocking(|reply| Request::Open { reply }, far()).unwrap();
    let mut read = Vec::new();
    UnixStream::from(opened.into_owned()).read_to_end(&mut read).unwrap();
    assert_eq!(read.len(), (40..50).map(|round| round * 4).sum::<usize>());
}

struct Actor {
    requests: Sender<Request>,
    events: Receiver<Event>,
    start: Start,
}

fn actor() -> Actor {
    let (requests, requests_end) = channel(4);
    let (events_end, events) = channel(4);
    Actor { requests, events, start: Start { requests: requests_end, events: events_end } }
}

/// What runs in the other process: receives what it is given, and becomes the actor.
fn child(end: ipc::link::LinkEnd<(), Start>) {
    child_on(DriverChoice::Auto, end);
}

fn child_on(driver: DriverChoice, end: ipc::link::LinkEnd<(), Start>) {
    let Opened { link, sender, mut receiver } = end.open().unwrap();
    drop(sender);
    on_driver(driver, async move {
        let driver = executor::spawn(link.drive());
        let start = receiver.recv().await.unwrap();
        drop((link, receiver));
        store(start.requests, start.events).await;
        driver.await.unwrap();
    });
}

fn beside_the_caller() {
    let Actor { requests, events, start } = actor();
    on_executor(async move {
        let actor = executor::spawn(store(start.requests, start.events));
        script(requests, events).await;
        actor.await;
    });
}

fn on_another_thread() {
    let Actor { requests, mut events, start } = actor();
    let thread = std::thread::spawn(|| on_executor(store(start.requests, start.events)));
    blocking_script(&requests, &mut events);
    drop((requests, events));
    thread.join().unwrap();
    let Actor { requests, events, start } = actor();
    let thread = std::thread::spawn(|| on_executor(store(start.requests, start.events)));
    on_executor(script(requests, events));
    thread.join().unwrap();
}

fn in_another_process() {
    in_another_process_on(DriverChoice::Auto);
}

fn in_another_process_without_io_uring() {
    in_another_process_on(DriverChoice::Epoll);
}

fn in_another_process_on(driver: DriverChoice) {
    let (here, there) = pair::<Start, ()>(&LinkConfig::default()).unwrap();
    // Made, and even used, before the other process exists.
    let Actor { requests, events, start } = actor();
    let process = fork(there, |end| child_on(driver, end));
    on_driver(driver, async move {
        let Opened { link, sender, receiver } = here.open().unwrap();
        let driver = executor::spawn(link.drive());
        sender.send(start).await.unwrap();
        drop((sender, receiver, link));
        script(requests, events).await;
        let death = driver.await.unwrap();
        assert!(matches!(death, LinkDeath::PeerDied | LinkDeath::ClosedHere), "{death}");
    });
    assert_eq!(process.wait(), Some(0));
}

fn in_another_process_for_a_thread() {
    let (here, there) = pair::<Start, ()>(&LinkConfig::default()).unwrap();
    let Actor { requests, mut events, start } = actor();
    let process = fork(there, child);
    let opened = here.open().unwrap();
    opened.sender.send_blocking(start, far()).unwrap();
    blocking_script(&requests, &mut events);
    drop((requests, opened));
    assert_eq!(events.recv_blocking(far()), Err(RecvBlockingError::Closed));
    drop(events);
    assert_eq!(process.wait(), Some(0));
}

fn a_killed_process_ends_the_waits_of_tasks() {
    let (here, there) = pair::<Start, ()>(&LinkConfig::default()).unwrap();
    let Actor { requests, mut events, start } = actor();
    let process = fork(there, child);
    on_executor(async {
        let Opened { link, sender, receiver: _receiver } = here.open().unwrap();
        let driver = executor::spawn(link.drive());
        sender.send(start).await.unwrap();
        let pending = requests.clone();
        let call =
            executor::spawn(
                async move { pending.call(|reply| Request::Keep { reply }, far()).await },
            );
        let put = |reply| Request::Put { key: "a".into(), value: vec![], reply };
        assert_eq!(requests.call(put, far()).await, Ok(None));
        process.kill();
        assert_eq!(call.await, Err(CallError::PeerDied));
        assert_eq!(driver.await.unwrap(), LinkDeath::PeerDied);
        // What it had said before is still heard.
        assert_eq!(events.recv().await, Ok(Event::Changed { key: "a".into() }));
        assert_eq!(events.recv().await, Err(RecvError::PeerDied));
        let late = requests.send(Request::Dump { output: std::io::stdin().into_fd() }).await;
        assert_eq!(late, Err(SendError::PeerDied));
        let late = requests.call(|reply| Request::Keep { reply }, far()).await;
        assert_eq!(late, Err(CallError::PeerDied));
    });
    assert_eq!(process.wait(), None);
}

fn a_killed_process_ends_the_waits_of_threads() {
    let (here, there) = pair::<Start, ()>(&LinkConfig::default()).unwrap();
    let Actor { requests, mut events, start } = actor();
    let process = fork(there, child);
    let opened = here.open().unwrap();
    opened.sender.send_blocking(start, far()).unwrap();
    let callers = [0, 1].map(|_| {
        let requests = requests.clone();
        std::thread::spawn(move || requests.call_blocking(|reply| Request::Keep { reply }, far()))
    });
    let put = |reply| Request::Put { key: "a".into(), value: vec![], reply };
    assert_eq!(requests.call_blocking(put, far()), Ok(None));
    process.kill();
    for caller in callers {
        assert_eq!(caller.join().unwrap(), Err(CallError::PeerDied));
    }
    assert_eq!(events.recv_blocking(far()), Ok(Event::Changed { key: "a".into() }));
    assert_eq!(events.recv_blocking(far()), Err(RecvBlockingError::PeerDied));
    assert_eq!(process.wait(), None);
}

fn a_stopped_process_is_noticed_at_the_deadline() {
    let (here, there) = pair::<Start, ()>(&LinkConfig::default()).unwrap();
    let Actor { requests, events: _events, start } = actor();
    let process = fork(there, child);
    let Opened { link, sender, receiver: _receiver } = here.open().unwrap();
    sender.send_blocking(start, far()).unwrap();
    process.stop();
    let soon = || ipc::Deadline::after(std::time::Duration::from_millis(20));
    let call = requests.call_blocking(|reply| Request::Keep { reply }, soon());
    assert_eq!(call, Err(CallError::TimedOut));
    on_executor(async {
        let driver = executor::spawn(link.drive());
        let call = requests.call(|reply| Request::Keep { reply }, soon()).await;
        assert_eq!(call, Err(CallError::TimedOut));
        // Whoever supervises it decides that it is as good as dead.
        link.close();
        let call = requests.call(|reply| Request::Keep { reply }, far()).await;
        assert_eq!(call, Err(CallError::PeerDied));
        assert_eq!(driver.await.unwrap(), LinkDeath::ClosedHere);
    });
    process.kill();
    assert_eq!(process.wait(), None);
}

fn a_process_that_exits_before_it_begins_is_dead() {
    let (here, there) = pair::<Start, ()>(&LinkConfig::default()).unwrap();
    let Actor { requests, events: _events, start } = actor();
    let process = fork(there, drop);
    let opened = here.open().unwrap();
    opened.sender.send_blocking(start, far()).unwrap();
    let call = requests.call_blocking(|reply| Request::Keep { reply }, far());
    assert_eq!(call, Err(CallError::PeerDied));
    assert_eq!(process.wait(), Some(0));
}

/// Says one thing and means another.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Liar(String);

impl Serialize for Liar {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [255_u8; 100].serialize(serializer)
    }
}

fn a_process_that_sends_nonsense_is_cut_off() {
    let (here, there) = pair::<(), Liar>(&LinkConfig::default()).unwrap();
    let process = fork(there, |end| {
        let mut opened = end.open().unwrap();
        opened.sender.send_blocking(Liar(String::new()), far()).unwrap();
        assert_eq!(opened.receiver.recv_blocking(far()), Err(RecvBlockingError::PeerDied));
    });
    let mut opened = here.open().unwrap();
    assert_eq!(opened.receiver.recv_blocking(far()), Err(RecvBlockingError::PeerDied));
    assert!(matches!(opened.link.death(), Some(LinkDeath::Protocol(_))));
    assert_eq!(process.wait(), Some(0));
}

trait IntoFd {
    fn into_fd(self) -> Fd;
}

impl<T: std::os::fd::AsFd> IntoFd for T {
    fn into_fd(self) -> Fd {
        Fd::new(self.as_fd().try_clone_to_owned().unwrap())
    }
}

macro_rules! run {
    ($($test:ident),* $(,)?) => {
        $(
            print!("test {} ... ", stringify!($test));
            std::io::stdout().flush().unwrap();
            $test();
            println!("ok");
        )*
    };
}

fn main() -> ExitCode {
    run!(
        beside_the_caller,
        on_another_thread,
        in_another_process,
        in_another_process_without_io_uring,
        in_another_process_for_a_thread,
        a_killed_process_ends_the_waits_of_tasks,
        a_killed_process_ends_the_waits_of_threads,
        a_stopped_process_is_noticed_at_the_deadline,
        a_process_that_exits_before_it_begins_is_dead,
        a_process_that_sends_nonsense_is_cut_off,
    );
    ExitCode::SUCCESS
}
