//! Pauses, and what may happen during one.

use super::model::{Bed, Manner, bed, hasty_bed, replaceable_bed, successor};

fn counts(bed: &Bed) -> (u32, u32, usize) {
    let seen = bed.seen.lock();
    (seen.pauses, seen.resumes, seen.activations.len())
}

#[test]
fn a_pause_reaches_the_back_end_once_and_ends_once() {
    let bed = bed();
    bed.start();
    for round in 1..=2 {
        for _ in 0..2 {
            assert_eq!(bed.device.pause(), Ok(()));
        }
        assert_eq!(counts(&bed), (round, round - 1, 1));
        for _ in 0..2 {
            assert_eq!(bed.device.resume(), Ok(()));
        }
        assert_eq!(counts(&bed), (round, round, 1));
    }
}

#[test]
fn a_driver_that_starts_the_device_during_a_pause_waits_for_its_end() {
    let bed = bed();
    assert_eq!(bed.device.pause(), Ok(()));
    assert_eq!(counts(&bed), (0, 0, 0), "there is nothing to pause");
    bed.start();
    assert_eq!(counts(&bed), (1, 0, 1));
    bed.set_status(0);
    bed.start();
    assert_eq!(counts(&bed), (2, 0, 2));
    assert_eq!(bed.device.resume(), Ok(()));
    assert_eq!(counts(&bed), (2, 1, 2));
}

#[test]
fn a_reset_during_a_pause_leaves_nothing_to_resume() {
    let bed = bed();
    bed.start();
    assert_eq!(bed.device.pause(), Ok(()));
    bed.set_status(0);
    assert_eq!(bed.device.resume(), Ok(()));
    assert_eq!(counts(&bed), (1, 0, 1));
}

#[test]
fn a_successor_that_comes_during_a_pause_starts_at_its_end() {
    for resets in [false, true] {
        let mut bed = replaceable_bed();
        bed.start();
        bed.set_manner(Manner::Die);
        // It dies of the request.
        assert!(bed.device.pause().is_err());
        let requests = successor(&mut bed);
        assert_eq!(bed.device.replace_backend(requests, || {}), Ok(()));
        assert_eq!(counts(&bed), (0, 0, 0), "it would go on with what is in flight");
        if resets {
            bed.set_status(0);
        }
        assert_eq!(bed.device.resume(), Ok(()));
        assert_eq!(counts(&bed), (0, 0, usize::from(!resets)));
        assert_eq!(bed.device.pause(), Ok(()));
        assert_eq!(bed.device.resume(), Ok(()));
        let paused = u32::from(!resets);
        assert_eq!(counts(&bed), (paused, paused, usize::from(!resets)));
    }
}

#[test]
fn a_back_end_that_hangs_is_told_of() {
    let bed = hasty_bed();
    // The deadline of the model is short; a busy machine may need several attempts.
    while bed.status() != 15 {
        bed.set_status(0);
        bed.start();
    }
    bed.set_manner(Manner::Hang);
    assert!(bed.device.pause().is_err());
    assert!(bed.device.resume().is_err());
}
