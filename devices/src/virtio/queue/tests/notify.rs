//! Who is told of what: kicks and interrupts.

use super::super::driver::{Buffer, Kick};
use super::*;

const BUFFER: Buffer = Buffer::Writable { address: DATA, length: 1 };

over_both_rings!(
    a_driver_that_polls_gets_no_interrupt,
    a_driver_that_sleeps_gets_one_interrupt_for_a_batch,
    with_indices_an_interrupt_comes_only_when_its_index_is_passed,
    kicks_are_off_while_the_device_looks_by_itself,
    no_notification_is_lost_between_threads,
);

fn send(fixture: &mut Fixture, count: usize) -> Kick {
    for _ in 0..count {
        fixture.driver.add(&[BUFFER]).unwrap();
    }
    fixture.driver.publish()
}

fn work(fixture: &mut Fixture) -> Interrupt {
    while fixture.pop().unwrap() {
        let head = fixture.chain.head();
        fixture.device.push_used(head, 0);
    }
    fixture.device.publish()
}

fn collect(fixture: &mut Fixture) -> usize {
    std::iter::from_fn(|| fixture.driver.take_used()).count()
}

fn a_driver_that_polls_gets_no_interrupt(format: RingLayout) {
    for features in [PLAIN, ALL] {
        let mut fixture = Fixture::new(format, 8, features);
        fixture.driver.disable_interrupts();
        let _ = send(&mut fixture, 1);
        // The first batch after activation always interrupts where indices decide.
        let _ = work(&mut fixture);
        collect(&mut fixture);
        for _ in 0..20 {
            fixture.driver.disable_interrupts();
            let _ = send(&mut fixture, 3);
            assert_eq!(work(&mut fixture), Interrupt::NotWanted);
            assert_eq!(collect(&mut fixture), 3);
        }
    }
}

fn a_driver_that_sleeps_gets_one_interrupt_for_a_batch(format: RingLayout) {
    for features in [PLAIN, ALL] {
        let mut fixture = Fixture::new(format, 8, features);
        for _ in 0..20 {
            assert!(!fixture.driver.enable_interrupts());
            let _ = send(&mut fixture, 5);
            assert_eq!(work(&mut fixture), Interrupt::Wanted);
            assert_eq!(fixture.device.publish(), Interrupt::NotWanted);
            assert_eq!(collect(&mut fixture), 5);
        }
    }
}

fn with_indices_an_interrupt_comes_only_when_its_index_is_passed(format: RingLayout) {
    let mut fixture = Fixture::new(format, 8, ALL);
    let _ = send(&mut fixture, 1);
    let _ = work(&mut fixture);
    collect(&mut fixture);
    assert!(!fixture.driver.enable_interrupts());
    let _ = send(&mut fixture, 1);
    assert_eq!(work(&mut fixture), Interrupt::Wanted);
    let _ = send(&mut fixture, 1);
    assert_eq!(work(&mut fixture), Interrupt::NotWanted);
    assert!(fixture.driver.enable_interrupts(), "two wait already");
}

fn kicks_are_off_while_the_device_looks_by_itself(format: RingLayout) {
    for features in [PLAIN, ALL] {
        let mut fixture = Fixture::new(format, 8, features);
        assert_eq!(fixture.device.enable_kicks(), Availability::Empty);
        assert_eq!(send(&mut fixture, 1), Kick::Wanted);
        fixture.device.disable_kicks();
        for _ in 0..20 {
            let _ = work(&mut fixture);
            collect(&mut fixture);
            assert_eq!(send(&mut fixture, 2), Kick::NotWanted);
        }
        assert_eq!(fixture.device.enable_kicks(), Availability::More);
        let _ = work(&mut fixture);
        assert_eq!(fixture.device.enable_kicks(), Availability::Empty);
        collect(&mut fixture);
        assert_eq!(send(&mut fixture, 2), Kick::Wanted);
    }
}

/// Two threads that each sleep when the other's queue looks empty: a lost notification hangs it.
fn no_notification_is_lost_between_threads(format: RingLayout) {
    use std::sync::mpsc;

    const ROUNDS: u32 = 20_000;
    let shared = GuestMemory::clone(&memory());
    let mut driver = DriverQueue::new(&shared, RINGS, 4, format, ALL);
    let layout = driver.layout();
    let (kick, kicked) = mpsc::channel::<()>();
    let (interrupt, interrupted) = mpsc::channel::<()>();
    let device = std::thread::spawn(move || {
        let memory = Rc::new(shared);
        let record = InflightRecord::private(4);
        let mut queue = Queue::new(&memory, &layout, ALL, record, None).unwrap();
        let mut chain = Chain::new(memory.clone(), 4);
        let mut served = 0;
        while served < ROUNDS {
            while queue.pop(&mut chain).unwrap() {
                served += 1;
                queue.push_used(chain.head(), served);
            }
            if queue.publish() == Interrupt::Wanted {
                interrupt.send(()).unwrap();
            }
            if served < ROUNDS && queue.enable_kicks() == Availability::Empty {
                kicked.recv().unwrap();
            }
        }
    });
    let mut sent = 0;
    let mut received = 0;
    while received < ROUNDS {
        while sent < ROUNDS && driver.add(&[BUFFER]).is_some() {
            sent += 1;
            if driver.publish() == Kick::Wanted {
                // The device may have served everything and ended already.
                let _ = kick.send(());
            }
        }
        while let Some(used) = driver.take_used() {
            received += 1;
            assert_eq!(used.written, received);
        }
        if received < sent && !driver.enable_interrupts() {
            interrupted.recv().unwrap();
        }
    }
    device.join().unwrap();
}
