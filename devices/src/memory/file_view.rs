//! A file's contents as memory to read from: a copy without a system call.
//!
//! Memory that no longer has a file behind it, because somebody cut it or the storage cannot read it, is a `SIGBUS`
//! for whoever touches it. [`survive_bus_errors`] makes that a page of zeros instead, for views alone:
//!
//! ```text
//!   copy ── no page ──► SIGBUS ──► a view's? ── no ──► the action that was there before
//!     ▲                               │ yes
//!     └───────── zeros ◄── a page in its place, the view marked as broken
//! ```
//!
//! Whoever copied looks at the mark afterwards, and has the kernel say what is wrong.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous};

use super::mapping::{Mapping, PAGE};
use super::near::prefetch;

/// Bytes that memory is moved by.
const CACHE_LINE: usize = 64;

/// Most views of a process: one for each of its disks.
const MOST_VIEWS: usize = 256;

/// The views that there are, for the handler. Memory without an owner that `static` gives is all that one can use.
static VIEWS: [Place; MOST_VIEWS] = [const { Place::free() }; MOST_VIEWS];

/// What was to be done about `SIGBUS` before; null until [`survive_bus_errors`] was called.
static BEFORE: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

#[derive(Debug)]
struct Place {
    taken: AtomicBool,
    start: AtomicUsize,
    /// Behind the last byte; 0 while there is no view.
    end: AtomicUsize,
    broken: AtomicBool,
}

impl Place {
    const fn free() -> Self {
        Self {
            taken: AtomicBool::new(false),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }

    fn holds(&self, address: usize) -> bool {
        address < self.end.load(Ordering::Acquire) && address >= self.start.load(Ordering::Relaxed)
    }
}

/// From now on the loss of a page behind a [`FileView`] does not end this process. Other `SIGBUS` are handled as
/// before, so call this after all else that handles them. Without it there are no views.
pub fn survive_bus_errors() -> io::Result<()> {
    let mut action = action(on_bus_error);
    // SAFETY: all zero is a valid action to be written over; the handler uses nothing but atomics and system calls.
    let result = unsafe {
        let mut before: Box<libc::sigaction> = Box::new(std::mem::zeroed());
        let result = libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut *before);
        if result == 0 && before.sa_sigaction == action.sa_sigaction {
            return Ok(());
        }
        // One for each call that changes something, kept for good: a handler may be looking at it.
        BEFORE.store(Box::into_raw(before), Ordering::Release);
        libc::sigaction(libc::SIGBUS, &raw mut action, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

fn action(handler: Handler) -> libc::sigaction {
    // SAFETY: all zero is an action without flags that blocks no signals.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    action
}

extern "C" fn on_bus_error(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo; codes above zero are its own and have an address.
    let address = unsafe { ((*info).si_code > 0).then(|| (*info).si_addr().addr()) };
    let view = VIEWS.iter().find(|view| address.is_some_and(|address| view.holds(address)));
    if let (Some(address), Some(view)) = (address, view) {
        // Before the zeros can be seen.
        view.broken.store(true, Ordering::SeqCst);
        let page = (address & !(PAGE as usize - 1)) as *mut libc::c_void;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: the page is part of a view, which nobody unmaps while it is read.
        let zeros = unsafe { mmap_anonymous(page, PAGE as usize, ProtFlags::READ, flags) };
        if zeros.is_ok() {
            return;
        }
    }
    // SAFETY: what is stored is never freed.
    let Some(before) = (unsafe { BEFORE.load(Ordering::Acquire).as_ref() }) else { return };
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // The access is repeated when this returns, and ends the process.
            // SAFETY: the default action runs no code of this process.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: an action with this flag holds such a function.
            let handler: Handler = unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: an action without the flag holds such a function.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

/// How often this thread has waited for storage because it touched memory of a file.
pub fn major_faults() -> u64 {
    // SAFETY: all zero is a valid result to be written over.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage.ru_majflt as u64
    }
}

/// The first bytes of a file, mapped to be read.
#[derive(Debug)]
pub struct FileView {
    mapping: Mapping,
    length: usize,
    place: &'static Place,
}

impl FileView {
    /// Maps the first `length` bytes of a file. The file may be shorter; what it does not have cannot be read.
    pub fn new(file: BorrowedFd<'_>, length: u64) -> io::Result<Self> {
        if BEFORE.load(Ordering::Acquire).is_null() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "bus errors are not survived"));
        }
        let length =
            usize::try_from(length).ok().filter(|length| *length <= isize::MAX as usize / 2);
        let length = length.filter(|length| *length > 0).ok_or(io::ErrorKind::InvalidInput)?;
        let mapping = Mapping::reserve(length.next_multiple_of(PAGE as usize), 0)?;
        let base = mapping.base().as_ptr().cast();
        // SAFETY: the reservation is ours and at least this long, so MAP_FIXED replaces nothing else.
        unsafe {
            let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
            mmap(base, length, ProtFlags::READ, flags, file, 0)?;
            // Advice only: a child and a core dump can do without.
            for advice in [Advice::LinuxDontFork, Advice::LinuxDontDump] {
                let _ = madvise(base, length, advice);
            }
        }
        let mut places = VIEWS.iter();
        let place = places.find(|place| !place.taken.swap(true, Ordering::AcqRel));
        let place = place.ok_or(io::ErrorKind::QuotaExceeded)?;
        place.broken.store(false, Ordering::Relaxed);
        place.start.store(base.addr(), Ordering::Relaxed);
        place.end.store(base.addr() + length.next_multiple_of(PAGE as usize), Ordering::Release);
        Ok(Self { mapping, length, place })
    }

    /// So many bytes from `offset` on, to be copied from while the view lives. None if the view does not have them.
    #[inline]
    pub fn part(&self, offset: u64, length: usize) -> Option<NonNull<u8>> {
        let offset = usize::try_from(offset).ok()?;
        let has = offset <= self.length && length <= self.length - offset;
        // SAFETY: the offset is within the mapping.
        has.then(|| unsafe { self.mapping.base().add(offset) })
    }

    /// Have the beginning of what will be copied brought near.
    #[inline]
    pub(crate) fn bring_near(&self, offset: u64) {
        if let Some(place) = self.part(offset, 1) {
            prefetch(place.as_ptr());
            // Two in a row tell the processor to go on.
            prefetch(place.as_ptr().wrapping_add(CACHE_LINE));
        }
    }

    /// Whether all that was copied until now is what the file holds.
    #[inline]
    pub fn is_intact(&self) -> bool {
        !self.place.broken.load(Ordering::Acquire)
    }

    /// Gives back what the kernel keeps to make reading fast; the next reads take longer.
    pub fn let_go(&self) {
        let base = self.mapping.base().as_ptr().cast();
        // SAFETY: what is given back comes from the file again.
        if let Err(error) = unsafe { madvise(base, self.length, Advice::LinuxDontNeed) } {
            log::debug!("a view of a file: {error}");
        }
    }
}

impl Drop for FileView {
    fn drop(&mut self) {
        // Nobody reads it any more: there are no faults that the handler could miss.
        self.place.end.store(0, Ordering::Release);
        self.place.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    fn file(pages: usize) -> File {
        let mut file = tempfile::tempfile().unwrap();
        for page in 0..pages {
            file.write_all(&[page as u8 + 1; PAGE as usize]).unwrap();
        }
        file
    }

    /// The first byte of a page.
    fn first(view: &FileView, page: u64) -> u8 {
        let part = view.part(page * PAGE, PAGE as usize).unwrap();
        // SAFETY: within the view.
        unsafe { part.as_ptr().read_volatile() }
    }

    #[test]
    fn a_view_shows_what_the_file_holds_and_nothing_behind_its_end() {
        survive_bus_errors().unwrap();
        let mut file = file(3);
        let view = FileView::new(file.as_fd(), 3 * PAGE).unwrap();
        assert_eq!((first(&view, 0), first(&view, 2)), (1, 3));
        file.write_all(&[9]).unwrap();
        for (offset, length) in [(3 * PAGE, 1), (2 * PAGE, PAGE as usize + 1), (u64::MAX, 1)] {
            assert!(view.part(offset, length).is_none(), "{offset} {length}");
        }
        view.let_go();
        assert_eq!(first(&view, 1), 2);
        assert!(view.is_intact());
    }

    #[test]
    fn a_file_that_was_cut_breaks_its_view_and_no_other() {
        survive_bus_errors().unwrap();
        let (cut, whole) = (file(3), file(3));
        let broken = FileView::new(cut.as_fd(), 3 * PAGE).unwrap();
        let other = FileView::new(whole.as_fd(), 3 * PAGE).unwrap();
        assert_eq!(first(&broken, 2), 3);
        cut.set_len(PAGE).unwrap();
        assert_eq!((first(&broken, 0), broken.is_intact()), (1, true));
        assert_eq!((first(&broken, 1), broken.is_intact()), (0, false));
        assert_eq!((first(&broken, 2), first(&other, 2)), (0, 3));
        assert!(other.is_intact());
        drop(broken);
        let next = FileView::new(whole.as_fd(), 3 * PAGE).unwrap();
        assert!(next.is_intact(), "a mark is not inherited");
    }
}
