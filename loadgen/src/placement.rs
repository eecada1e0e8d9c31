//! Which processors the driver and a back end run on.
//!
//! Where both sleep between requests it depends on the scheduler's whims whether a wake-up goes to another
//! processor, which has to be woken up itself, or not: several times the cost of a request. So it is decided
//! beforehand, and for all alike.

use rustix::io::Errno;
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};

use crate::ring::system;
use crate::{LoadError, Processes};

/// Where they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// The driver on one processor, the back end on another, as a virtual processor and a device that are both busy.
    Apart,
    /// Both on one processor.
    Together,
    /// Wherever the scheduler has them.
    Anywhere,
}

/// This thread and a back end, until this is dropped, where they were put.
pub(crate) struct Placed {
    before: Option<CpuSet>,
}

impl Placement {
    /// Puts this thread and all threads of a back end where they belong. Threads that come later are where the
    /// one is that made them.
    pub(crate) fn put(self, back_end: u32) -> Result<Placed, LoadError> {
        let before = sched_getaffinity(None).map_err(failed)?;
        let mut processors = (0..CpuSet::MAX_CPU).filter(|number| before.is_set(*number));
        let first = processors.next();
        let (driver, device) = match self {
            Self::Anywhere => return Ok(Placed { before: None }),
            Self::Together => (first, first),
            Self::Apart => (first, processors.next()),
        };
        let (Some(driver), Some(device)) = (driver, device) else {
            return Err(LoadError::Unfit("has no processor for itself here".into()));
        };
        for thread in
            Processes::threads(back_end).map_err(LoadError::system("look at processes"))?
        {
            match sched_setaffinity(Pid::from_raw(thread), &only(device)) {
                // It has ended, or is one of the kernel's, which stay where they are.
                Ok(()) | Err(Errno::SRCH | Errno::INVAL) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        sched_setaffinity(Some(gettid()), &only(driver)).map_err(failed)?;
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

fn only(processor: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(processor);
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
        let placed = Placement::Together.put(child.id()).unwrap();
        let theirs = sched_getaffinity(Pid::from_raw(child.id() as i32)).unwrap();
        assert_eq!(theirs, sched_getaffinity(None).unwrap());
        assert_eq!(theirs.count(), 1);
        drop(placed);
        assert_eq!(sched_getaffinity(None).unwrap(), before);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
