//! Waiting for what a dead process still holds.
//!
//! The kernel closes the files that are registered with a ring after the death of its process, in the
//! background: milliseconds later, longer where it is busy. Until then a disk is locked, a block device claimed,
//! a tap taken, a socket listened on.

use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(2);

/// Tries again while the error may be owed to somebody who is dead; gives up after two seconds.
pub fn outlast<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    may_be_dead: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(error) if may_be_dead(&error) && Instant::now() < give_up => {
                thread::sleep(INTERVAL);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_waited_for_and_the_rest_is_told_at_once() {
        let mut tries = 0;
        let mut attempt = || {
            tries += 1;
            if tries < 3 { Err("held") } else { Err("broken") }
        };
        assert_eq!(outlast::<(), _>(&mut attempt, |error| *error == "held"), Err("broken"));
        assert_eq!(tries, 3);
        assert_eq!(outlast(|| Ok::<_, ()>(7), |()| true), Ok(7));
    }
}
