//! The wheel against a list, and when sleeps end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::sleep::{now, sleep};
use super::wheel::{TimerKey, Wheel};
use crate::TaskGroup;
use crate::driver::still::Still;
use crate::task::waker::LocalWaker;
use crate::time::instant::Instant;

/// Wakers that note which timer they belong to.
struct Note {
    number: usize,
    fired: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.fired.lock().unwrap().push(self.number);
    }
}

#[test]
fn the_wheel_agrees_with_a_sorted_list() {
    let epoch = Instant::from_nanos(1 << 40);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let rounds = if cfg!(miri) { 3 } else { 300 };
    for round in 0..rounds {
        let mut wheel = Wheel::new(epoch);
        let fired: Arc<Mutex<Vec<usize>>> = Arc::default();
        let mut model: Model = Vec::new();
        let mut now = Duration::ZERO;
        let mut expired = VecDeque::new();
        for number in 0..200 {
            match next(4) {
                0 | 1 => {
                    // From nanoseconds to hours.
                    let bits = 8 + next(36);
                    let ahead = next(1 << bits);
                    let deadline = now + Duration::from_nanos(ahead);
                    let waker = Waker::from(Arc::new(Note { number, fired: Arc::clone(&fired) }));
                    let key =
                        wheel.insert(epoch + now, epoch + deadline, LocalWaker::foreign(waker));
                    let latest = latest(now, deadline);
                    model.push(Modelled { deadline, latest, number, key });
                }
                2 if !model.is_empty() => {
                    let key = model.remove(next(model.len() as u64) as usize).key;
                    assert!(wheel.remove(key).is_some());
                    assert!(wheel.remove(key).is_none(), "the key is of the past");
                }
                _ => {
                    let bits = 8 + next(36);
                    let step = Duration::from_nanos(next(1 << bits));
                    let soon = wheel.next_expiry().map(|at| at.duration_since(epoch));
                    now = if next(2) == 0 { now + step } else { soon.unwrap_or(now).max(now) };
                    check(&mut wheel, &mut model, &mut expired, &fired, (epoch, now));
                }
            }
            assert_eq!(wheel.is_empty(), model.is_empty(), "round {round}");
            let earliest = model.iter().map(|timer| timer.latest).min();
            let next_expiry = wheel.next_expiry().map(|at| at.duration_since(epoch));
            assert_eq!(earliest.is_some(), next_expiry.is_some());
            if let (Some(earliest), Some(next_expiry)) = (earliest, next_expiry) {
                assert!(next_expiry <= earliest.max(now + 2 * TICK), "round {round}");
            }
        }
    }
}

const TICK: Duration = Duration::from_nanos(1 << 12);

struct Modelled {
    deadline: Duration,
    latest: Duration,
    number: usize,
    key: TimerKey,
}

type Model = Vec<Modelled>;

/// When a timer that is set now fires at the latest.
fn latest(now: Duration, deadline: Duration) -> Duration {
    let lateness = deadline.saturating_sub(now) / 16;
    deadline + lateness.min(64 * TICK) + 2 * TICK
}

fn check(
    wheel: &mut Wheel,
    model: &mut Model,
    expired: &mut VecDeque<LocalWaker>,
    fired: &Mutex<Vec<usize>>,
    (epoch, now): (Instant, Duration),
) {
    wheel.expire(epoch + now, expired);
    for waker in expired.drain(..) {
        let Err(waker) = waker.into_parts() else {
            unreachable!("only such wakers were inserted");
        };
        waker.wake();
    }
    let fired = std::mem::take(&mut *fired.lock().unwrap());
    let mut before = Duration::ZERO;
    for &number in &fired {
        let position = model.iter().position(|timer| timer.number == number).unwrap();
        let Modelled { deadline, latest, key, .. } = model.remove(position);
        assert!(deadline <= now, "never early");
        assert!(before <= latest, "earliest first, as far as they had to be told apart");
        before = before.max(deadline);
        assert!(wheel.waker(key).is_none());
        assert!(wheel.remove(key).is_none(), "its waker has gone");
    }
    for timer in model {
        assert!(timer.latest > now, "a timer was missed");
    }
}

#[test]
fn sleeps_that_begin_together_end_in_order() {
    let mut executor = Still::executor(0);
    executor.block_on(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let group = TaskGroup::new();
        // Over several levels of the wheel, several in one tick, in a muddled order.
        for micros in (0..400).map(|number| number * 7919 % 400 * 31) {
            let order = Rc::clone(&order);
            group.spawn(async move {
                sleep(Duration::from_micros(micros)).await;
                order.borrow_mut().push(micros);
            });
        }
        group.wait().await;
        let order = order.borrow();
        assert!(order.len() == 400 && order.is_sorted(), "{order:?}");
    });
}

#[test]
fn long_sleeps_that_end_about_the_same_time_share_their_turns() {
    // Miri takes a minute for ten.
    let count = if cfg!(miri) { 40 } else { 1000 };
    let mut executor = Still::executor(0);
    executor.block_on(async {
        let group = TaskGroup::new();
        for number in 0..count {
            group.spawn(async move {
                // 1 to 5 ms, in a muddled order.
                let length = Duration::from_micros(1000 + number * 7919 % count * 4);
                let start = now();
                sleep(length).await;
                let late = (now() - start).checked_sub(length).expect("never early");
                assert!(late <= length / 16 + 2 * TICK, "{length:?} {late:?}");
            });
        }
        group.wait().await;
    });
    let turns = executor.stats().turns;
    assert!(turns < 100, "{turns}");
}
