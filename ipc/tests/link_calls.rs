//! Calls over links, and how they end, with both ends open in this process.

mod support;

use std::future::Future;
use std::pin::pin;
use std::task::Context;

use ipc::link::{LinkConfig, LinkDeath};
use ipc::{CallError, Receiver, RecvBlockingError, RecvError, SendError, TrySendError, channel};
use support::requests::{Request, number, open, requests};
use support::{Count, far, on_executor, passed};

#[test]
fn calls_cross_in_both_directions_at_once() {
    fn serve(mut receiver: Receiver<Request>, calls: u32) {
        for _ in 0..calls {
            match receiver.recv_blocking(far()).unwrap() {
                Request::Double { value, reply } => reply.send(value * 2),
                Request::Echo { data, reply } => reply.send(data),
                other => panic!("{other:?}"),
            }
        }
    }
    let (here, there) = requests();
    let servers = [here.receiver, there.receiver]
        .map(|receiver| std::thread::spawn(move || serve(receiver, 4000)));
    let callers = [here.sender, there.sender].into_iter().flat_map(|sender| {
        [0, 1].map(|_| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for value in 0..1000 {
                    let doubled =
                        sender.call_blocking(|reply| Request::Double { value, reply }, far());
                    assert_eq!(doubled, Ok(value * 2));
                    let data = vec![value as u8; value as usize];
                    let echo = |reply| Request::Echo { data: data.clone(), reply };
                    assert_eq!(sender.call_blocking(echo, far()), Ok(data.clone()));
                }
            })
        })
    });
    let callers: Vec<_> = callers.collect();
    for thread in callers.into_iter().chain(servers) {
        thread.join().unwrap();
    }
}

#[test]
fn tasks_call_and_serve_through_the_doorbell() {
    let (here, mut there) = requests();
    let server = std::thread::spawn(move || {
        on_executor(async move {
            executor::spawn(there.link.drive()).detach();
            let mut served = 0;
            loop {
                match there.receiver.recv().await {
                    Ok(Request::Double { value, reply }) => reply.send(value * 2),
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => return (served, error),
                }
                served += 1;
            }
        })
    });
    on_executor(async move {
        let driver = executor::spawn(here.link.drive());
        for value in 0..1000 {
            let doubled = here.sender.call(|reply| Request::Double { value, reply }, far()).await;
            assert_eq!(doubled, Ok(value * 2));
        }
        drop(here);
        assert_eq!(driver.await.unwrap(), LinkDeath::ClosedHere);
    });
    assert_eq!(server.join().unwrap(), (1000, RecvError::Closed));
}

#[test]
fn a_request_forwarded_over_a_link_is_answered_to_its_caller() {
    let (here, mut there) = requests();
    let (sender, mut local) = channel::<Request>(4);
    let relay = std::thread::spawn(move || {
        for _ in 0..200 {
            let request = local.recv_blocking(far()).unwrap();
            here.sender.send_blocking(request, far()).unwrap();
        }
        here
    });
    let server = std::thread::spawn(move || {
        on_executor(async move {
            executor::spawn(there.link.drive()).detach();
            for _ in 0..200 {
                let Ok(Request::Double { value, reply }) = there.receiver.recv().await else {
                    panic!("no request");
                };
                reply.send(value * 2);
            }
        });
    });
    for value in 0..200 {
        let doubled = sender.call_blocking(|reply| Request::Double { value, reply }, far());
        assert_eq!(doubled, Ok(value * 2));
    }
    server.join().unwrap();
    relay.join().unwrap();
}

#[test]
fn a_port_dropped_unanswered_refuses() {
    let (here, mut there) = requests();
    let server = std::thread::spawn(move || {
        drop(there.receiver.recv_blocking(far()).unwrap());
        there
    });
    let outcome = here.sender.call_blocking(|reply| Request::Double { value: 1, reply }, far());
    assert_eq!(outcome, Err(CallError::Refused));
    server.join().unwrap();
}

#[test]
fn an_answer_too_large_for_its_slot_refuses() {
    let (here, mut there) =
        open::<Request, ()>(&LinkConfig { reply_bytes: 64, ..LinkConfig::default() });
    let server = std::thread::spawn(move || {
        let Ok(Request::Echo { data, reply }) = there.receiver.recv_blocking(far()) else {
            panic!("no request");
        };
        reply.send(data);
        there
    });
    let data = vec![3; 200];
    let outcome = here.sender.call_blocking(|reply| Request::Echo { data, reply }, far());
    assert_eq!(outcome, Err(CallError::Refused));
    server.join().unwrap();
}

#[test]
fn requests_in_a_dropped_receiver_are_refused_and_later_ones_closed() {
    let (here, there) = requests();
    let (_, waker) = Count::new();
    on_executor(async {
        let mut call = pin!(here.sender.call(|reply| Request::Double { value: 1, reply }, far()));
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(there.receiver);
        assert_eq!(call.await, Err(CallError::Refused));
    });
    let outcome = here.sender.call_blocking(|reply| Request::Double { value: 1, reply }, far());
    assert_eq!(outcome, Err(CallError::Closed));
}

#[test]
fn a_late_answer_does_not_reach_the_next_call() {
    let (here, mut there) =
        open::<Request, ()>(&LinkConfig { reply_slots: 1, ..LinkConfig::default() });
    let late = here.sender.call_blocking(|reply| Request::Double { value: 1, reply }, passed());
    assert_eq!(late, Err(CallError::TimedOut));
    let Ok(Request::Double { reply: late, .. }) = there.receiver.try_recv() else {
        panic!("no request");
    };
    let server = std::thread::spawn(move || {
        let Ok(Request::Double { value, reply }) = there.receiver.recv_blocking(far()) else {
            panic!("no request");
        };
        late.send(999);
        reply.send(value * 2);
        there
    });
    let answer = here.sender.call_blocking(|reply| Request::Double { value: 4, reply }, far());
    assert_eq!(answer, Ok(8));
    server.join().unwrap();
}

#[test]
fn more_calls_than_reply_slots_wait_for_their_turn() {
    let (here, mut there) =
        open::<Request, ()>(&LinkConfig { reply_slots: 2, ..LinkConfig::default() });
    let server = std::thread::spawn(move || {
        let mut served = 0;
        while let Ok(Request::Double { value, reply }) = there.receiver.recv_blocking(far()) {
            reply.send(value * 2);
            served += 1;
        }
        served
    });
    let link = here.link.clone();
    on_executor(async {
        executor::spawn(link.drive()).detach();
        let callers: Vec<_> = (0..8)
            .map(|caller| {
                let sender = here.sender.clone();
                executor::spawn(async move {
                    for value in caller * 100..caller * 100 + 50 {
                        let call = sender.call(|reply| Request::Double { value, reply }, far());
                        assert_eq!(call.await, Ok(value * 2));
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await;
        }
    });
    drop(here);
    assert_eq!(server.join().unwrap(), 400);
}

#[test]
fn a_dead_peer_ends_every_wait_after_what_it_had_sent() {
    let (here, there) = requests();
    let mut here_receiver = here.receiver;
    there.sender.try_send(Request::Number(1)).unwrap();
    let (port_count, waker) = Count::new();
    on_executor(async {
        let driver = executor::spawn(here.link.drive());
        let mut call = pin!(here.sender.call(|reply| Request::Double { value: 1, reply }, far()));
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        // Dying, seen from here: the socket hangs up, and nothing else is said.
        there.link.close();
        assert_eq!(driver.await.unwrap(), LinkDeath::PeerDied);
        assert_eq!(port_count.get(), 1);
        assert_eq!(call.await, Err(CallError::PeerDied));
        assert_eq!(number(here_receiver.recv().await), 1);
        assert!(matches!(here_receiver.recv().await, Err(RecvError::PeerDied)));
    });
    assert!(matches!(here.sender.try_send(Request::Number(1)), Err(TrySendError::PeerDied(_))));
    assert_eq!(here.sender.send_blocking(Request::Number(1), far()), Err(SendError::PeerDied));
    let call = here.sender.call_blocking(|reply| Request::Double { value: 1, reply }, far());
    assert_eq!(call, Err(CallError::PeerDied));
    assert_eq!(here.link.death(), Some(LinkDeath::PeerDied));
}

#[test]
fn threads_notice_a_dead_peer_without_a_driver() {
    let (here, there) = requests();
    let caller = std::thread::spawn(move || {
        here.sender.call_blocking(|reply| Request::Double { value: 1, reply }, far())
    });
    let mut receiver = there.receiver;
    let request = receiver.recv_blocking(far());
    assert!(request.is_ok());
    there.link.close();
    assert_eq!(caller.join().unwrap(), Err(CallError::PeerDied));
}

#[test]
fn closing_a_link_here_ends_the_waits_here() {
    let (here, _there) = requests();
    let link = here.link.clone();
    let mut receiver = here.receiver;
    let waiting = std::thread::spawn(move || receiver.recv_blocking(far()).map(|_| ()));
    link.close();
    assert_eq!(waiting.join().unwrap(), Err(RecvBlockingError::PeerDied));
    let call = here.sender.call_blocking(|reply| Request::Double { value: 1, reply }, far());
    assert_eq!(call, Err(CallError::PeerDied));
}
