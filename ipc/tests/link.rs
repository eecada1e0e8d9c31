//! Messages over links, with both ends open in this process: everything but the fork.

mod support;

use std::future::Future;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::task::Context;

use ipc::link::{LinkConfig, LinkError, pair};
use ipc::{Fd, RecvBlockingError, SendError, TryRecvError, TrySendError, Unsendable, channel};
use proptest::prelude::*;
use support::requests::{Request, number, open, requests};
use support::{Count, far, on_executor};

#[test]
fn sizes_that_make_no_sense_are_refused() {
    let default = LinkConfig::default();
    for config in [
        LinkConfig { capacity: 0, ..default },
        LinkConfig { reply_slots: 0, ..default },
        LinkConfig { reply_bytes: 0, ..default },
        LinkConfig { reply_bytes: u32::MAX, ..default },
        LinkConfig { arena_bytes: u32::MAX, ..default },
    ] {
        assert!(matches!(pair::<u8, u8>(&config), Err(LinkError::Config(_))), "{config:?}");
    }
}

#[test]
fn the_capacity_is_exact_and_a_full_channel_gives_the_message_back() {
    let (here, mut there) =
        open::<Request, ()>(&LinkConfig { capacity: 3, ..LinkConfig::default() });
    for round in 0..1000 {
        for index in 0..3 {
            here.sender.try_send(Request::Number(round + index)).unwrap();
        }
        let Err(TrySendError::Full(Request::Number(77))) =
            here.sender.try_send(Request::Number(77))
        else {
            panic!("room for a fourth message");
        };
        for index in 0..3 {
            assert_eq!(number(there.receiver.try_recv()), round + index);
        }
        assert!(matches!(there.receiver.try_recv(), Err(TryRecvError::Empty)));
    }
}

#[test]
fn handles_of_a_message_without_room_stay_usable() {
    let (here, mut there) =
        open::<Request, ()>(&LinkConfig { capacity: 1, ..LinkConfig::default() });
    here.sender.try_send(Request::Number(0)).unwrap();
    let (local_sender, local_receiver) = channel::<Request>(4);
    local_sender.try_send(Request::Number(1)).unwrap();
    let Err(TrySendError::Full(Request::TakeReceiver(mut receiver))) =
        here.sender.try_send(Request::TakeReceiver(local_receiver))
    else {
        panic!("the receiver did not come back");
    };
    assert_eq!(number(receiver.try_recv()), 1);
    assert_eq!(number(there.receiver.try_recv()), 0);
    here.sender.try_send(Request::TakeReceiver(receiver)).unwrap();
    local_sender.try_send(Request::Number(2)).unwrap();
    let Ok(Request::TakeReceiver(mut moved)) = there.receiver.try_recv() else {
        panic!("the receiver did not arrive");
    };
    assert_eq!(number(moved.try_recv()), 2);
}

#[test]
fn a_message_too_large_for_the_ring_is_refused_and_harms_nothing() {
    let (here, mut there) = requests();
    let sent = here.sender.try_send(Request::Data(vec![1; 9 << 10]));
    assert!(matches!(sent, Err(TrySendError::Unsendable(Unsendable::TooLarge))), "{sent:?}");
    let sent = here.sender.send_blocking(Request::Data(vec![1; 9 << 10]), far());
    assert_eq!(sent, Err(SendError::Unsendable(Unsendable::TooLarge)));
    here.sender.try_send(Request::Number(5)).unwrap();
    assert_eq!(number(there.receiver.try_recv()), 5);
}

#[test]
fn tasks_wait_for_room_and_wake_each_other() {
    const MESSAGES: u32 = 5000;
    let (here, mut there) =
        open::<Request, ()>(&LinkConfig { capacity: 2, ..LinkConfig::default() });
    let server = std::thread::spawn(move || {
        on_executor(async move {
            executor::spawn(there.link.drive()).detach();
            for expected in 0..MESSAGES {
                assert_eq!(number(there.receiver.recv().await), expected);
            }
        });
    });
    on_executor(async move {
        executor::spawn(here.link.drive()).detach();
        for value in 0..MESSAGES {
            here.sender.send(Request::Number(value)).await.unwrap();
        }
    });
    server.join().unwrap();
}

#[test]
fn descriptors_cross_with_messages_and_answers() {
    let (here, mut there) = requests();
    let (mut near, far_end) = UnixStream::pair().unwrap();
    let fds = (0..20).map(|_| Fd::new(far_end.try_clone().unwrap())).collect();
    drop(far_end);
    here.sender.try_send(Request::Fds(fds)).unwrap();
    let Ok(Request::Fds(fds)) = there.receiver.try_recv() else { panic!("no descriptors") };
    assert_eq!(fds.len(), 20);
    for fd in fds {
        let mut stream = UnixStream::from(fd.into_owned());
        stream.write_all(b"x").unwrap();
    }
    let mut read = Vec::new();
    near.read_to_end(&mut read).unwrap();
    assert_eq!(read, [b'x'; 20]);

    let server = std::thread::spawn(move || {
        let Ok(Request::Connect { reply }) = there.receiver.recv_blocking(far()) else {
            panic!("no request");
        };
        let (mine, yours) = UnixStream::pair().unwrap();
        reply.send(Ok(Fd::new(yours)));
        mine
    });
    let answer = here.sender.call_blocking(|reply| Request::Connect { reply }, far());
    let mut yours = UnixStream::from(answer.unwrap().unwrap().into_owned());
    yours.write_all(b"hello").unwrap();
    drop(yours);
    let mut text = String::new();
    server.join().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
}

#[test]
fn descriptors_of_frames_that_nobody_reads_are_closed() {
    let (here, there) = requests();
    let (mut near, far_end) = UnixStream::pair().unwrap();
    here.sender.try_send(Request::Fds(vec![Fd::new(far_end)])).unwrap();
    drop(there.receiver);
    let mut read = Vec::new();
    assert_eq!(near.read_to_end(&mut read).unwrap(), 0);
}

#[test]
fn a_sender_that_was_sent_reaches_the_local_receiver_beside_local_senders() {
    let (here, mut there) = requests();
    let (local_sender, mut receiver) = channel::<Request>(4);
    here.sender.try_send(Request::TakeSender(local_sender.clone())).unwrap();
    let Ok(Request::TakeSender(remote)) = there.receiver.try_recv() else { panic!("no sender") };
    local_sender.try_send(Request::Number(1)).unwrap();
    remote.try_send(Request::Number(2)).unwrap();
    let mut both = [number(receiver.try_recv()), number(receiver.try_recv())];
    both.sort_unstable();
    assert_eq!(both, [1, 2]);
    assert!(matches!(receiver.try_recv(), Err(TryRecvError::Empty)));
    drop(local_sender);
    remote.try_send(Request::Number(3)).unwrap();
    drop(remote);
    assert_eq!(number(receiver.recv_blocking(far())), 3);
    assert!(matches!(receiver.recv_blocking(far()), Err(RecvBlockingError::Closed)));
}

#[test]
fn a_receiver_that_was_sent_gets_the_queued_messages_first() {
    let (here, mut there) = requests();
    let (sender, receiver) = channel::<Request>(8);
    for value in 0..4 {
        sender.try_send(Request::Number(value)).unwrap();
    }
    here.sender.try_send(Request::TakeReceiver(receiver)).unwrap();
    for value in 4..8 {
        sender.clone().try_send(Request::Number(value)).unwrap();
    }
    assert!(matches!(sender.try_send(Request::Number(8)), Err(TrySendError::Full(_))));
    let Ok(Request::TakeReceiver(mut moved)) = there.receiver.try_recv() else {
        panic!("no receiver")
    };
    for value in 0..8 {
        assert_eq!(number(moved.try_recv()), value);
    }
    drop(moved);
    assert!(matches!(sender.try_send(Request::Number(9)), Err(TrySendError::Closed(_))));
}

#[test]
fn senders_that_wait_for_room_follow_the_receiver() {
    let (here, mut there) = requests();
    let (sender, receiver) = channel::<Request>(1);
    sender.try_send(Request::Number(1)).unwrap();
    let (count, waker) = Count::new();
    let mut context = Context::from_waker(&waker);
    let mut sending = pin!(sender.send(Request::Number(2)));
    assert!(sending.as_mut().poll(&mut context).is_pending());
    here.sender.try_send(Request::TakeReceiver(receiver)).unwrap();
    assert_eq!(count.get(), 1);
    assert!(sending.as_mut().poll(&mut context).is_pending());
    let Ok(Request::TakeReceiver(mut moved)) = there.receiver.try_recv() else {
        panic!("no receiver")
    };
    assert_eq!(number(moved.try_recv()), 1);
    assert!(sending.as_mut().poll(&mut context).is_ready());
    assert_eq!(number(moved.try_recv()), 2);
}

#[test]
fn handles_from_one_link_cannot_go_over_another() {
    let (here, mut there) = requests();
    let (other, _other_end) = requests();
    let (local, _receiver) = channel::<Request>(1);
    here.sender.try_send(Request::TakeSender(local)).unwrap();
    let Ok(Request::TakeSender(remote)) = there.receiver.try_recv() else { panic!("no sender") };
    let sent = other.sender.try_send(Request::TakeSender(remote));
    assert!(matches!(sent, Err(TrySendError::Unsendable(Unsendable::ForeignHandle))));
}

#[test]
fn an_end_of_a_link_is_itself_a_message() {
    let (here, mut there) = open::<ipc::link::LinkEnd<u8, u16>, ()>(&LinkConfig::default());
    let (near, away) = pair::<u16, u8>(&LinkConfig::default()).unwrap();
    here.sender.try_send(away).unwrap();
    let away = there.receiver.try_recv().unwrap().open().unwrap();
    let mut near = near.open().unwrap();
    away.sender.try_send(7).unwrap();
    assert_eq!(near.receiver.try_recv(), Ok(7));
}

#[test]
fn channels_can_be_made_and_dropped_for_ever_in_a_small_arena() {
    let config = LinkConfig { arena_bytes: 32 << 10, ..LinkConfig::default() };
    let (here, mut there) = open::<Request, ()>(&config);
    for value in 0..1000 {
        let (sender, mut receiver) = channel::<Request>(4);
        here.sender.try_send(Request::TakeSender(sender)).unwrap();
        let Ok(Request::TakeSender(remote)) = there.receiver.try_recv() else {
            panic!("no sender")
        };
        remote.try_send(Request::Number(value)).unwrap();
        assert_eq!(number(receiver.try_recv()), value);
    }
    let mut kept = Vec::new();
    loop {
        let (sender, receiver) = channel::<Request>(4);
        kept.push(receiver);
        match here.sender.try_send(Request::TakeSender(sender)) {
            Ok(()) => drop(there.receiver.try_recv()),
            Err(TrySendError::Unsendable(Unsendable::NoRoom)) => break,
            Err(other) => panic!("{other:?}"),
        }
        assert!(kept.len() < 100);
    }
}

proptest! {
    #[test]
    fn frames_of_any_size_wrap_around_in_order(
        sizes in proptest::collection::vec(0_usize..3000, 1..60),
        batch in 1_usize..5,
    ) {
        let (here, mut there) = open::<Request, ()>(&LinkConfig::default());
        for (round, sizes) in sizes.chunks(batch).enumerate() {
            let mut sent = Vec::new();
            for size in sizes {
                let data: Vec<u8> = (0..*size).map(|index| (index + round) as u8).collect();
                match here.sender.try_send(Request::Data(data.clone())) {
                    Ok(()) => sent.push(data),
                    Err(TrySendError::Full(_)) => break,
                    Err(other) => panic!("{other:?}"),
                }
            }
            for expected in sent {
                let Ok(Request::Data(data)) = there.receiver.try_recv() else {
                    panic!("a frame was lost");
                };
                prop_assert_eq!(data, expected);
            }
        }
    }
}
