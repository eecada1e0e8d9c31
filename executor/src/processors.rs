//! Which processors of the host a thread runs on.

use std::cell::Cell;
use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// One more than the highest number that a processor can have here.
pub const MAX_PROCESSORS: usize = CpuSet::MAX_CPU;

thread_local! {
    /// If this thread was put somewhere: what [`must_share_processor`] said before.
    static SHARED_BEFORE: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Has this thread run on these processors only. Executors that are made on it afterwards keep the kernel's threads
/// that work for them there, too.
pub fn pin_thread(processors: impl IntoIterator<Item = u16>) -> io::Result<()> {
    let shared = must_share_processor();
    sched_setaffinity(None, &set_of(processors))?;
    SHARED_BEFORE.set(Some(shared));
    Ok(())
}

/// Whether this thread may run on one processor only, which those with whom it works then share. One that was put on
/// a processor with [`pin_thread`] was put there because the others are elsewhere.
pub fn must_share_processor() -> bool {
    // Not `available_parallelism`: that opens files, which a sandboxed process must not.
    let ask = || sched_getaffinity(None).is_ok_and(|processors| processors.count() == 1);
    SHARED_BEFORE.get().unwrap_or_else(ask)
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
    SHARED_BEFORE.get().and_then(|_| sched_getaffinity(None).ok())
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
    fn nowhere_is_an_error() {
        let test = || {
            assert!(pin_thread([]).is_err());
            assert!(pin_thread([u16::MAX]).is_err());
        };
        std::thread::spawn(test).join().unwrap();
    }
}
