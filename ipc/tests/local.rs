//! Channels inside one process.

mod support;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use ipc::{
    CallError, RecvBlockingError, RecvError, Reply, SendError, Tap, TryRecvError, TrySendError,
    channel,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use support::{Count, block_on, far, on_executor, passed};

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Double { value: u32, reply: Reply<u32> },
    Ignore { reply: Reply<u32> },
}

#[test]
fn a_channel_holds_exactly_its_capacity() {
    for capacity in [1, 2, 3, 7, 8] {
        let (sender, mut receiver) = channel::<usize>(capacity);
        for round in 0..5 {
            for index in 0..capacity {
                sender.try_send(round * 100 + index).unwrap();
            }
            assert_eq!(sender.try_send(9999), Err(TrySendError::Full(9999)));
            for index in 0..capacity {
                assert_eq!(receiver.try_recv(), Ok(round * 100 + index));
            }
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        }
    }
}

#[test]
#[should_panic(expected = "at least one message")]
fn a_channel_for_nothing_is_a_bug() {
    let _ = channel::<u8>(0);
}

#[test]
fn the_receiver_gets_the_rest_and_then_closed() {
    let (sender, mut receiver) = channel::<u8>(4);
    let second = sender.clone();
    sender.try_send(1).unwrap();
    second.try_send(2).unwrap();
    drop(sender);
    assert_eq!(receiver.try_recv(), Ok(1));
    drop(second);
    assert_eq!(block_on(receiver.recv()), Ok(2));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    assert_eq!(block_on(receiver.recv()), Err(RecvError::Closed));
    assert_eq!(receiver.recv_blocking(far()), Err(RecvBlockingError::Closed));
}

#[test]
fn senders_learn_that_the_receiver_is_gone() {
    let (sender, receiver) = channel::<u8>(1);
    sender.try_send(1).unwrap();
    let (count, waker) = Count::new();
    let mut context = Context::from_waker(&waker);
    let mut sending = pin!(sender.send(2));
    assert!(sending.as_mut().poll(&mut context).is_pending());
    drop(receiver);
    assert_eq!(count.get(), 1);
    assert_eq!(sending.as_mut().poll(&mut context), Poll::Ready(Err(SendError::Closed)));
    assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)));
    assert_eq!(sender.send_blocking(3, far()), Err(SendError::Closed));
}

#[test]
fn a_sleeping_receiver_is_woken_once_per_sleep() {
    let (sender, mut receiver) = channel::<u8>(4);
    let (count, waker) = Count::new();
    let mut context = Context::from_waker(&waker);
    assert!(receiver.poll_recv(&mut context).is_pending());
    sender.try_send(1).unwrap();
    sender.try_send(2).unwrap();
    assert_eq!(count.get(), 1);
    assert_eq!(receiver.poll_recv(&mut context), Poll::Ready(Ok(1)));
    assert_eq!(receiver.poll_recv(&mut context), Poll::Ready(Ok(2)));
    assert!(receiver.poll_recv(&mut context).is_pending());
    drop(sender);
    assert_eq!(count.get(), 2);
    assert_eq!(receiver.poll_recv(&mut context), Poll::Ready(Err(RecvError::Closed)));
}

#[test]
fn the_waker_of_the_latest_poll_counts() {
    let (sender, mut receiver) = channel::<u8>(4);
    let (old, old_waker) = Count::new();
    let (new, new_waker) = Count::new();
    assert!(receiver.poll_recv(&mut Context::from_waker(&old_waker)).is_pending());
    assert!(receiver.poll_recv(&mut Context::from_waker(&new_waker)).is_pending());
    sender.try_send(1).unwrap();
    assert_eq!((old.get(), new.get()), (0, 1));
}

#[test]
fn free_slots_go_to_waiting_senders_in_order() {
    let (sender, mut receiver) = channel::<u8>(1);
    sender.try_send(0).unwrap();
    let (first_count, first_waker) = Count::new();
    let (second_count, second_waker) = Count::new();
    let mut first = pin!(sender.send(1));
    let mut second = pin!(sender.send(2));
    assert!(first.as_mut().poll(&mut Context::from_waker(&first_waker)).is_pending());
    assert!(second.as_mut().poll(&mut Context::from_waker(&second_waker)).is_pending());
    assert_eq!(receiver.try_recv(), Ok(0));
    assert_eq!((first_count.get(), second_count.get()), (1, 0));
    assert!(first.as_mut().poll(&mut Context::from_waker(&first_waker)).is_ready());
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(second_count.get(), 1);
    assert!(second.as_mut().poll(&mut Context::from_waker(&second_waker)).is_ready());
}

#[test]
fn a_sender_that_gives_up_passes_its_turn_on() {
    let (sender, mut receiver) = channel::<u8>(1);
    sender.try_send(0).unwrap();
    let (_, first_waker) = Count::new();
    let (second_count, second_waker) = Count::new();
    let mut first = Box::pin(sender.send(1));
    let mut second = pin!(sender.send(2));
    assert!(first.as_mut().poll(&mut Context::from_waker(&first_waker)).is_pending());
    assert!(second.as_mut().poll(&mut Context::from_waker(&second_waker)).is_pending());
    assert_eq!(receiver.try_recv(), Ok(0));
    drop(first);
    assert_eq!(second_count.get(), 1);
    assert!(second.as_mut().poll(&mut Context::from_waker(&second_waker)).is_ready());
    assert_eq!(receiver.try_recv(), Ok(2));
}

#[test]
fn blocking_operations_end_at_the_deadline() {
    let (sender, mut receiver) = channel::<u8>(1);
    assert_eq!(receiver.recv_blocking(passed()), Err(RecvBlockingError::TimedOut));
    sender.try_send(1).unwrap();
    assert_eq!(sender.send_blocking(2, passed()), Err(SendError::TimedOut));
    assert_eq!(receiver.recv_blocking(passed()), Ok(1));
}

#[test]
fn a_call_is_answered_refused_closed_or_late() {
    let (sender, mut receiver) = channel::<Request>(4);
    let actor = std::thread::spawn(move || {
        for _ in 0..2 {
            match receiver.recv_blocking(far()).unwrap() {
                Request::Double { value, reply } => reply.send(value * 2),
                Request::Ignore { reply } => drop(reply),
            }
        }
        receiver
    });
    let answer = sender.call_blocking(|reply| Request::Double { value: 21, reply }, far());
    assert_eq!(answer, Ok(42));
    let refused = on_executor(sender.call(|reply| Request::Ignore { reply }, far()));
    assert_eq!(refused, Err(CallError::Refused));
    let receiver = actor.join().unwrap();
    let late = sender.call_blocking(|reply| Request::Ignore { reply }, passed());
    assert_eq!(late, Err(CallError::TimedOut));
    let late = on_executor(sender.call(|reply| Request::Ignore { reply }, passed()));
    assert_eq!(late, Err(CallError::TimedOut));
    drop(receiver);
    let closed = sender.call_blocking(|reply| Request::Ignore { reply }, far());
    assert_eq!(closed, Err(CallError::Closed));
}

#[test]
fn requests_left_in_a_dropped_channel_are_refused() {
    let (sender, receiver) = channel::<Request>(4);
    let outcome = on_executor(async {
        let (_, waker) = Count::new();
        let mut call = pin!(sender.call(|reply| Request::Ignore { reply }, far()));
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(receiver);
        call.await
    });
    assert_eq!(outcome, Err(CallError::Refused));
}

#[test]
fn an_answer_to_nobody_is_dropped() {
    let (sender, mut receiver) = channel::<Request>(4);
    on_executor(async {
        let mut call = Box::pin(sender.call(|reply| Request::Double { value: 1, reply }, far()));
        let (_, waker) = Count::new();
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    });
    let Ok(Request::Double { value, reply }) = receiver.try_recv() else {
        panic!("no request");
    };
    reply.send(value);
}

#[test]
fn a_tap_keeps_the_last_messages_of_its_channels() {
    let tap = Tap::new(3);
    let (sender, receiver) = channel::<String>(2);
    let sender = sender.tapped(&tap, "out");
    let mut receiver = receiver.tapped(&tap, "in");
    sender.try_send("first".into()).unwrap();
    sender.clone().try_send("ä".repeat(1000)).unwrap();
    assert!(sender.try_send("not sent".into()).is_err());
    receiver.try_recv().unwrap();
    block_on(receiver.recv()).unwrap();
    assert!(receiver.try_recv().is_err());
    let records = tap.records();
    let passed: Vec<_> = records.iter().map(|record| (record.number, record.channel)).collect();
    assert_eq!(passed, [(1, "out"), (2, "in"), (3, "in")]);
    assert_eq!(records[1].text, "\"first\"");
    assert!(records[2].text.starts_with("\"ää") && records[2].text.len() <= 160);
}

#[test]
fn many_threads_lose_nothing_and_keep_their_order() {
    const THREADS: usize = 3;
    let per_thread = if cfg!(miri) { 50 } else { 20_000 };
    for capacity in [1, 3, 64] {
        let (sender, mut receiver) = channel::<(usize, usize)>(capacity);
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for number in 0..per_thread {
                        if thread == 0 {
                            block_on(sender.send((thread, number))).unwrap();
                        } else {
                            sender.send_blocking((thread, number), far()).unwrap();
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        let mut next = [0; THREADS];
        let mut turn = 0;
        loop {
            turn += 1;
            let next_one = if turn % 2 == 0 {
                block_on(receiver.recv()).ok()
            } else {
                receiver.recv_blocking(far()).ok()
            };
            let Some((thread, number)) = next_one else {
                break;
            };
            assert_eq!(number, next[thread]);
            next[thread] += 1;
        }
        assert_eq!(next, [per_thread; THREADS]);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

proptest! {
    #[test]
    fn a_channel_behaves_like_a_bounded_deque(
        capacity in 1_usize..9,
        pushes in proptest::collection::vec(any::<bool>(), 0..200),
    ) {
        let (sender, mut receiver) = channel::<usize>(capacity);
        let mut model = VecDeque::new();
        for (number, push) in pushes.into_iter().enumerate() {
            if push {
                let sent = sender.try_send(number);
                if model.len() < capacity {
                    prop_assert_eq!(sent, Ok(()));
                    model.push_back(number);
                } else {
                    prop_assert_eq!(sent, Err(TrySendError::Full(number)));
                }
            } else {
                prop_assert_eq!(receiver.try_recv().ok(), model.pop_front());
            }
        }
    }
}
