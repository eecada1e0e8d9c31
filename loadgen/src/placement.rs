//! Which processors the driver and a back end run on.
//!
//! Where both sleep between requests it depends on the scheduler's whims whether a wake-up goes to another
//! processor, which has to be woken up itself, or not: several times the cost of a request. So it is decided
//! beforehand, and for all alike.
//!
//! Where both look for each other the scheduler may put them on one processor when another program has had the
//! other one for a moment, and leave them there: then each request takes as long as two switches.

use rustix::io::Errno;
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};

use crate::ring::system;
use crate::{LoadError, Processes};

/// Where they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Each thread of the driver with a processor, back ends on the others, as virtual processors and devices that
    /// are all busy.
    Apart,
    /// All on one processor.
    Together,
    /// Wherever the scheduler has them.
    Anywhere,
}

/// This thread and back ends, until this is dropped, where they were put.
#[derive(Debug)]
pub struct Placed {
    before: Option<CpuSet>,
}

impl Placement {
    /// Apart where so many threads of drivers leave a processor to the back ends, else anywhere.
    pub fn for_drivers(threads: usize) -> Self {
        let processors = sched_getaffinity(None).map_or(0, |all| all.count() as usize);
        if threads < processors { Self::Apart } else { Self::Anywhere }
    }

    /// Puts this thread, which is that of the driver or makes `drivers` of them, and all threads of back ends
    /// where they belong, but those that have chosen processors themselves. Threads that come later are where the one is
    /// that made them.
    pub fn put(
        self,
        back_ends: impl IntoIterator<Item = u32>,
        drivers: usize,
    ) -> Result<Placed, LoadError> {
        let before = sched_getaffinity(None).map_err(failed)?;
        let processors = || (0..CpuSet::MAX_CPU).filter(|number| before.is_set(*number));
        let (driver, device) = match self {
            Self::Anywhere => return Ok(Placed { before: None }),
            Self::Together => (set_of(processors().take(1)), set_of(processors().take(1))),
            Self::Apart => (set_of(processors().take(drivers)), set_of(processors().skip(drivers))),
        };
        if driver.count() == 0 || device.count() == 0 {
            return Err(LoadError::Unfit("has no processor for itself here".into()));
        }
        for back_end in back_ends {
            let threads = Processes::threads(back_end);
            for thread in threads.map_err(LoadError::system("look at processes"))? {
                let thread = Pid::from_raw(thread);
                if sched_getaffinity(thread).is_ok_and(|own| own != before) {
                    // Its program has put it somewhere.
                    continue;
                }
                match sched_setaffinity(thread, &device) {
                    // It has ended, or is one of the kernel's, which stay where they are.
                    Ok(()) | Err(Errno::SRCH | Errno::INVAL) => {}
                    Err(errno) => return Err(failed(errno)),
                }
            }
        }
        sched_setaffinity(Some(gettid()), &driver).map_err(failed)?;
        Ok(Placed { before: Some(before) })
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // It was there before.
            let _ = sched_setaffinity(None, before);
        }
    }
}

fn set_of(processors: impl Iterator<Item = usize>) -> CpuSet {
    let mut set = CpuSet::new();
    for processor in processors {
        set.set(processor);
    }
    set
}

fn failed(errno: Errno) -> LoadError {
    system("choose processors", errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_put_where_they_belong_and_back() {
        let before = sched_getaffinity(None).unwrap();
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let placed = Placement::Together.put([child.id()], 1).unwrap();
        let theirs = sched_getaffinity(Pid::from_raw(child.id() as i32)).unwrap();
        assert_eq!(theirs, sched_getaffinity(None).unwrap());
        assert_eq!(theirs.count(), 1);
        drop(placed);
        assert_eq!(sched_getaffinity(None).unwrap(), before);
        if before.count() > 1 {
            let placed = Placement::Apart.put([child.id()], 1).unwrap();
            let now = sched_getaffinity(Pid::from_raw(child.id() as i32)).unwrap();
            assert_eq!(now, theirs, "it was put somewhere");
            drop(placed);
        }
        let too_many = before.count() as usize;
        assert!(Placement::Apart.put([child.id()], too_many).is_err());
        assert_eq!(sched_getaffinity(None).unwrap(), before, "nothing was done");
        assert_eq!(Placement::for_drivers(too_many), Placement::Anywhere);
        if too_many > 1 {
            assert_eq!(Placement::for_drivers(1), Placement::Apart);
            sched_setaffinity(Pid::from_raw(child.id() as i32), &before).unwrap();
            let _placed = Placement::Apart.put([child.id()], 1).unwrap();
            let ours = sched_getaffinity(None).unwrap();
            let theirs = sched_getaffinity(Pid::from_raw(child.id() as i32)).unwrap();
            assert_eq!((ours.count(), ours.count() + theirs.count()), (1, before.count()));
            assert!(
                (0..CpuSet::MAX_CPU).all(|number| !(ours.is_set(number) && theirs.is_set(number)))
            );
        }
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
