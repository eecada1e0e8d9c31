//! Executors that look at a link before they sleep, with both ends open in this process.

mod support;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use executor::{Config, Executor};
use ipc::{Receiver, RecvError, Sender};
use support::requests::{Request, number, requests};
use support::{Count, far, on_executor};

async fn serve(mut receiver: Receiver<Request>, calls: u32) {
    for _ in 0..calls {
        match receiver.recv().await {
            Ok(Request::Double { value, reply }) => reply.send(value * 2),
            Ok(other) => panic!("{other:?}"),
            Err(error) => panic!("{error}"),
        }
    }
}

fn call_blocking(sender: &Sender<Request>, calls: u32) {
    for value in 0..calls {
        let doubled = sender.call_blocking(|reply| Request::Double { value, reply }, far());
        assert_eq!(doubled, Ok(value * 2));
    }
}

#[test]
fn while_it_looks_nobody_rings_or_sleeps() {
    const CALLS: u32 = 2000;
    let (here, there) = requests();
    let caller = std::thread::spawn(move || call_blocking(&here.sender, CALLS));
    // For longer than any test takes, whatever it has learned.
    let config = Config { idle_spin: Duration::from_hours(1), ..Config::default() };
    Executor::new(&config).unwrap().block_on(async move {
        // Nobody hears the bell: what is found is found by looking.
        let _looking = there.link.look_when_idle();
        executor::flush();
        let before = executor::stats().unwrap().system_calls;
        serve(there.receiver, CALLS).await;
        assert_eq!(executor::stats().unwrap().system_calls, before);
    });
    caller.join().unwrap();
}

#[test]
fn a_busy_executor_finds_what_was_sent_without_a_ring() {
    let (here, mut there) = requests();
    on_executor(async move {
        let _looking = there.link.look_when_idle();
        let received = executor::spawn(async move { number(there.receiver.recv().await) });
        let busy = executor::spawn(async {
            loop {
                executor::yield_now().await;
            }
        });
        executor::yield_now().await;
        here.sender.try_send(Request::Number(7)).unwrap();
        assert_eq!(received.await, 7);
        busy.cancel();
    });
}

#[test]
fn calls_between_executors_that_look_and_sleep_lose_nothing() {
    const CALLS: u32 = 3000;
    let (here, there) = requests();
    let server = std::thread::spawn(move || {
        on_executor(async move {
            executor::spawn(there.link.drive()).detach();
            let _looking = there.link.look_when_idle();
            serve(there.receiver, CALLS).await;
        });
    });
    on_executor(async move {
        executor::spawn(here.link.drive()).detach();
        let _looking = here.link.look_when_idle();
        for value in 0..CALLS {
            // So that both sleep now and then.
            if value % 100 == 0 {
                executor::sleep(Duration::from_millis(1)).await;
            }
            let doubled = here.sender.call(|reply| Request::Double { value, reply }, far()).await;
            assert_eq!(doubled, Ok(value * 2));
        }
    });
    server.join().unwrap();
}

#[test]
fn who_waits_when_the_looking_ends_is_woken_by_the_bell() {
    let (here, mut there) = requests();
    on_executor(async move {
        executor::spawn(there.link.drive()).detach();
        let looking = there.link.look_when_idle();
        let mut wait = pin!(there.receiver.recv());
        poll_fn(|context| {
            assert!(wait.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(looking);
        here.sender.try_send(Request::Number(3)).unwrap();
        assert_eq!(number(wait.await), 3);
    });
}

#[test]
fn what_came_before_the_looking_ended_is_found_at_its_end() {
    let (here, mut there) = requests();
    let (count, waker) = Count::new();
    on_executor(async move {
        let looking = there.link.look_when_idle();
        let mut wait = pin!(there.receiver.recv());
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        here.sender.try_send(Request::Number(3)).unwrap();
        assert_eq!(count.get(), 0);
        drop(looking);
        assert_eq!(count.get(), 1);
        assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    });
}

#[test]
fn a_peer_that_dies_ends_a_wait_without_a_flag() {
    let (here, mut there) = requests();
    on_executor(async move {
        executor::spawn(there.link.drive()).detach();
        let _looking = there.link.look_when_idle();
        let waiting = executor::spawn(async move { there.receiver.recv().await });
        executor::yield_now().await;
        drop(here);
        assert!(matches!(waiting.await, Err(RecvError::Closed | RecvError::PeerDied)));
    });
}
