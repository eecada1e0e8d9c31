//! Clients that are slow or silent. Deadlines are zero or for ever, so that no time has to pass.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use executor::{Config, Executor, yield_now};

use super::super::protocol::EventKind;
use super::*;

const FOR_EVER: Duration = Duration::from_hours(1);
/// Far more than a socket and a queue hold.
const EVENTS: u64 = 20_000;

/// A client, and the task that serves it.
fn connect(hub: &Rc<EventHub>, idle: Duration) -> (UnixStream, TaskGroup) {
    let (own, client) = UnixStream::pair().expect("a pair");
    client.set_nonblocking(true).expect("is set");
    let tasks = TaskGroup::new();
    let (commands, _) = ipc::channel(1);
    let connection = Fd::unregistered(own).expect("a connection");
    tasks.spawn(serve(connection, commands, Rc::clone(hub), idle));
    (client, tasks)
}

fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    Executor::new(&Config::default()).expect("an executor").block_on(test());
}

/// All that comes to the end of the connection.
async fn read_all(client: &mut UnixStream) -> String {
    let (mut text, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match client.read(&mut piece) {
            Ok(0) => return String::from_utf8(text).expect("text"),
            Ok(count) => text.extend(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_client_that_says_nothing_is_shown_out() {
    run(|| async {
        let (mut client, tasks) = connect(&EventHub::new(), Duration::ZERO);
        assert_eq!(read_all(&mut client).await.lines().count(), 1);
        tasks.wait().await;
    });
}

#[test]
fn events_that_a_slow_client_misses_are_counted_for_it() {
    run(|| async {
        let hub = EventHub::new();
        let (mut client, tasks) = connect(&hub, FOR_EVER);
        client.write_all(b"{\"do\":\"events\"}\n").expect("it is sent");
        while !hub.has_listeners() {
            yield_now().await;
        }
        for _ in 0..EVENTS {
            hub.say(EventKind::Paused);
            yield_now().await;
        }
        hub.close();
        let text = read_all(&mut client).await;
        tasks.wait().await;
        let mut heard = 0;
        let mut missed = 0;
        for line in text.lines().skip(2) {
            let frame: Frame = serde_json::from_str(line).expect("a frame");
            match frame {
                Frame::Event(event) => match event.kind {
                    EventKind::Paused => heard += 1,
                    EventKind::Lagged { events } => missed += events,
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            }
        }
        assert!(missed > 0, "{heard} events were heard");
        assert_eq!(heard + missed, EVENTS);
    });
}
