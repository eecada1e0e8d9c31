//! Which processors of the host a thread runs on.

use std::cell::Cell;
use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// One more than the highest number that a processor can have here.
pub const MAX_PROCESSORS: usize = CpuSet::MAX_CPU;

thread_local! {
    /// What [`must_share_processor`] said first.
    static MUST_SHARE: Cell<Option<bool>> = const { Cell::new(None) };
    /// Whether this thread was put somewhere.
    static IS_PINNED: Cell<bool> = const { Cell::new(false) };
}

/// Has this thread run on these processors only. Executors that are made on it afterwards keep the kernel's threads
/// that work for them there, too.
pub fn pin_thread(processors: impl IntoIterator<Item = u16>) -> io::Result<()> {
    // Asked before.
    must_share_processor();
    sched_setaffinity(None, &set_of(processors))?;
    IS_PINNED.set(true);
    Ok(())
}

/// Whether this thread might run on one processor only when its executor was made, which those with whom it works then
/// share. One that is put on a processor later, with [`pin_thread`] or from outside, is put there because the others are
/// elsewhere.
pub fn must_share_processor() -> bool {
    if let Some(known) = MUST_SHARE.get() {
        return known;
    }
    // Not `available_parallelism`: that opens files, which a sandboxed process must not.
    let shared = sched_getaffinity(None).is_ok_and(|processors| processors.count() == 1);
    MUST_SHARE.set(Some(shared));
    shared
}

/// The processors that this thread could be put on, whatever it runs on now: those that its cgroup allows.
pub fn allowed_processors() -> io::Result<Vec<u16>> {
    let before = sched_getaffinity(None)?;
    // The kernel takes what it allows of this.
    sched_setaffinity(None, &set_of(0..MAX_PROCESSORS as u16))?;
    let allowed = sched_getaffinity(None);
    sched_setaffinity(None, &before)?;
    let allowed = allowed?;
    Ok((0..MAX_PROCESSORS as u16).filter(|number| allowed.is_set(usize::from(*number))).collect())
}

/// Where this thread was put, if it was.
pub(crate) fn pinned_to() -> Option<CpuSet> {
    IS_PINNED.get().then(|| sched_getaffinity(None).ok()).flatten()
}

fn set_of(processors: impl IntoIterator<Item = u16>) -> CpuSet {
    let mut set = CpuSet::new();
    for number in processors {
        // Those that cannot be there are left out, as the kernel does with those that are not.
        if usize::from(number) < MAX_PROCESSORS {
            set.set(number.into());
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_goes_where_it_is_put_and_does_not_take_that_for_a_small_host() {
        let test = || {
            let allowed = allowed_processors().unwrap();
            let shared = must_share_processor();
            let last = *allowed.last().unwrap();
            pin_thread([last]).unwrap();
            let now = sched_getaffinity(None).unwrap();
            assert_eq!((now.count(), now.is_set(last.into())), (1, true));
            assert_eq!(must_share_processor(), shared);
            // Asking changes nothing.
            assert_eq!(allowed_processors().unwrap(), allowed);
            assert_eq!(sched_getaffinity(None).unwrap(), now);
            let mut executor = crate::Executor::new(&crate::Config::default()).unwrap();
            assert_eq!(executor.block_on(async { 7 }), 7);
        };
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn a_thread_that_others_move_after_it_began_does_not_take_that_for_a_small_host() {
        let test = || {
            let mut executor = crate::Executor::new(&crate::Config::default()).unwrap();
            let shared = sched_getaffinity(None).unwrap().count() == 1;
            let last = *allowed_processors().unwrap().last().unwrap();
            sched_setaffinity(None, &set_of([last])).unwrap();
            assert_eq!(executor.block_on(async { must_share_processor() }), shared);
        };
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn nowhere_is_an_error() {
        let test = || {
            assert!(pin_thread([]).is_err());
            assert!(pin_thread([u16::MAX]).is_err());
        };
        std::thread::spawn(test).join().unwrap();
    }
}
