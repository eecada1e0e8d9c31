//! What of the program's file a process has mapped, which is what its memory mostly consists of.

use std::ffi::c_void;
use std::time::Duration;

use rustix::mm::Advice;

/// By then a driver has found its device and works: what ran until now does not run again soon.
const BEGINNING: Duration = Duration::from_secs(2);

/// Gives back what only the beginning of this process took. Needs an executor on this thread.
pub async fn shed_beginnings() {
    executor::sleep(BEGINNING).await;
    forget_program_pages();
    give_back_heap();
}

/// Gives back what was allocated and freed meanwhile.
fn give_back_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the allocator's own, at any time and on any thread; only memory that is free is given back.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps the pages of code and constants that this process has touched so far; those that it
/// still needs come back by themselves.
///
/// The kernel maps pages around each one that is touched. For a process that was set up by code
/// which it never runs again this is most of what counts as its memory.
fn forget_program_pages() {
    // SAFETY: the callback only reads what it is given, and advises.
    unsafe { libc::dl_iterate_phdr(Some(forget_object), std::ptr::null_mut()) };
}

unsafe extern "C" fn forget_object(
    object: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> libc::c_int {
    // SAFETY: dl_iterate_phdr passes a valid object, with so many headers.
    let (base, headers) = unsafe {
        let object = &*object;
        let count = usize::from(object.dlpi_phnum);
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, count))
    };
    let never_written = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0);
    for header in never_written {
        let page = rustix::param::page_size();
        let start = (base + header.p_vaddr) as usize & !(page - 1);
        let end = (base + header.p_vaddr + header.p_memsz) as usize;
        let start_address = std::ptr::with_exposed_provenance_mut::<c_void>(start);
        // SAFETY: the segment is mapped from a file and was never written, so that its pages hold
        // the same when they are mapped again. Where this fails, they stay.
        let _ = unsafe { rustix::mm::madvise(start_address, end - start, Advice::LinuxDontNeed) };
    }
    0
}
