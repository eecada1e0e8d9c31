//! The queue of a local channel.

use std::task::{Context, Poll};

use loom::sync::Arc;
use loom::thread;

use crate::queue::{Consumer, PushError, Queue};
use crate::{all_orders, sleep};

/// A message whose end is noticed: loom complains of what is left of an [`Arc`].
type Message = (u32, Arc<()>);

fn message(number: u32) -> Message {
    (number, Arc::new(()))
}

fn push(queue: &Queue<Message>, mut message: Message) -> Result<(), PushError<Message>> {
    let mut ticket = None;
    sleep::until(|context: &mut Context<'_>| {
        for look in 0..2 {
            let ready = match queue.try_push((message.0, Arc::clone(&message.1))) {
                Err(PushError::Full(back)) => {
                    message = back;
                    None
                }
                outcome => Some(outcome),
            };
            if let Some(outcome) = ready {
                if let Some(ticket) = ticket
                    && !queue.full_waiters.remove(ticket)
                {
                    // Woken for a place that was not needed: another one may want it.
                    queue.notify_one_full_waiter();
                }
                return Poll::Ready(outcome);
            }
            if look == 0 {
                ticket = Some(queue.full_waiters.register(ticket, context.waker()));
                queue.request_free_slot();
            }
        }
        Poll::Pending
    })
}

fn pop(consumer: &mut Consumer<Message>) -> Option<u32> {
    sleep::until(|context| consumer.poll_pop(context)).map(|(number, _)| number)
}

#[test]
fn one_producer_and_its_consumer_sleep_and_wake_in_order() {
    all_orders(2, || {
        let (queue, mut consumer) = Queue::new(1);
        let producer = thread::spawn(move || {
            for number in 0..2 {
                assert!(push(&queue, message(number)).is_ok());
            }
            queue.drop_sender();
        });
        assert_eq!(pop(&mut consumer), Some(0));
        assert_eq!(pop(&mut consumer), Some(1));
        assert_eq!(pop(&mut consumer), None);
        assert!(consumer.is_finished());
        producer.join().unwrap();
    });
}

#[test]
fn two_producers_lose_nothing() {
    all_orders(1, || {
        let (queue, mut consumer) = Queue::new(2);
        queue.add_sender();
        let producers = [0, 1].map(|number| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                assert!(push(&queue, message(number)).is_ok());
                queue.drop_sender();
            })
        });
        drop(queue);
        let mut taken = [pop(&mut consumer), pop(&mut consumer)];
        taken.sort_unstable();
        assert_eq!(taken, [Some(0), Some(1)]);
        assert_eq!(pop(&mut consumer), None);
        for producer in producers {
            producer.join().unwrap();
        }
    });
}

#[test]
fn what_is_sent_to_a_consumer_that_goes_comes_back_or_is_dropped_once() {
    all_orders(3, || {
        let (queue, consumer) = Queue::new(1);
        let producer = thread::spawn(move || {
            let outcome = push(&queue, message(0));
            assert!(matches!(outcome, Ok(()) | Err(PushError::Closed(_))));
            assert!(matches!(queue.try_push(message(1)), Err(_) | Ok(())));
            queue.drop_sender();
        });
        drop(consumer);
        producer.join().unwrap();
    });
}

#[test]
fn a_consumer_that_moves_takes_all_that_was_sent_before() {
    all_orders(3, || {
        let (queue, mut consumer) = Queue::new(2);
        let producer = thread::spawn(move || {
            let mut sent = 0;
            for number in 0..2 {
                match push(&queue, message(number)) {
                    Ok(()) => sent += 1,
                    Err(PushError::Moved(_)) => break,
                    Err(_) => unreachable!("there is room, and nobody closes"),
                }
            }
            queue.drop_sender();
            sent
        });
        let mut taken = 0;
        consumer.move_away(|_| taken += 1);
        assert_eq!(producer.join().unwrap(), taken);
    });
}
