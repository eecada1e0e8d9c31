//! Memory that the kernel may use until an operation completes.
//!
//! All of these traits are unsafe to implement: the executor gives the addresses they return to
//! the kernel and keeps the value itself, possibly moved elsewhere, until the completion.

use std::ops::{Bound, RangeBounds};
use std::rc::Rc;
use std::sync::Arc;

use libc::iovec;

/// Memory to write from.
///
/// # Safety
///
/// The returned pointer is valid for reads of `bytes_init()` bytes until the value is dropped,
/// also when the value itself is moved, and nothing writes to that memory while an operation holds
/// the value (memory shared with a guest excepted).
pub unsafe trait IoBuf: 'static {
    /// Start of the memory.
    fn stable_ptr(&self) -> *const u8;
    /// Initialised bytes at its start.
    fn bytes_init(&self) -> usize;

    /// Only a part of the buffer. Ranges past the initialised bytes are cut off when the buffer is
    /// written from, and past the capacity when it is read into.
    fn slice(self, range: impl RangeBounds<usize>) -> Slice<Self>
    where
        Self: Sized,
    {
        let begin = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => usize::MAX,
        };
        Slice { buffer: self, begin, end }
    }
}

/// Memory to read into.
///
/// # Safety
///
/// The returned pointer is valid for writes of `bytes_total()` bytes until the value is dropped,
/// also when the value itself is moved, and nothing else uses that memory while an operation holds
/// the value (memory shared with a guest excepted).
pub unsafe trait IoBufMut: IoBuf {
    /// Start of the memory; the same address as [`IoBuf::stable_ptr`].
    fn stable_mut_ptr(&mut self) -> *mut u8;
    /// Bytes that can be read into it.
    fn bytes_total(&self) -> usize;
    /// Notes that the first `count` bytes are initialised now. Never shrinks what is initialised.
    ///
    /// # Safety
    ///
    /// They are, and `count` is at most `bytes_total()`.
    unsafe fn set_init(&mut self, count: usize);
}

/// A stable array of `iovec`s over memory to write from.
///
/// # Safety
///
/// Array and memory stay valid for reads until the value is dropped, also when the value is moved.
pub unsafe trait IoVecs: 'static {
    /// Start and length of the array.
    fn iovecs(&self) -> (*const iovec, usize);
}

/// An [`IoVecs`] whose memory may also be read into.
///
/// # Safety
///
/// The memory is valid for writes, and nothing else uses it while an operation holds the value
/// (memory shared with a guest excepted).
pub unsafe trait IoVecsMut: IoVecs {}

// SAFETY: the heap block of a vector neither moves nor dies with moves of the vector.
unsafe impl IoBuf for Vec<u8> {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }
    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: as above; the vector is owned, so nothing else uses its block.
unsafe impl IoBufMut for Vec<u8> {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }
    fn bytes_total(&self) -> usize {
        self.capacity()
    }
    unsafe fn set_init(&mut self, count: usize) {
        if count > self.len() {
            // SAFETY: the caller says that so many bytes are initialised.
            unsafe { self.set_len(count) };
        }
    }
}

// SAFETY: as for vectors.
unsafe impl IoBuf for Box<[u8]> {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }
    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: as for vectors.
unsafe impl IoBufMut for Box<[u8]> {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }
    fn bytes_total(&self) -> usize {
        self.len()
    }
    unsafe fn set_init(&mut self, _count: usize) {}
}

// SAFETY: as for vectors.
unsafe impl<const N: usize> IoBuf for Box<[u8; N]> {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }
    fn bytes_init(&self) -> usize {
        N
    }
}

// SAFETY: as for vectors.
unsafe impl<const N: usize> IoBufMut for Box<[u8; N]> {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }
    fn bytes_total(&self) -> usize {
        N
    }
    unsafe fn set_init(&mut self, _count: usize) {}
}

macro_rules! read_only_buffer {
    ($($type:ty),*) => {$(
        // SAFETY: the bytes live outside the value, are shared and immutable.
        unsafe impl IoBuf for $type {
            fn stable_ptr(&self) -> *const u8 {
                self.as_ptr()
            }
            fn bytes_init(&self) -> usize {
                self.len()
            }
        }
    )*};
}

read_only_buffer!(&'static [u8], &'static str, String, Rc<[u8]>, Arc<[u8]>);

// SAFETY: the bytes are in static memory, shared and immutable.
unsafe impl<const N: usize> IoBuf for &'static [u8; N] {
    fn stable_ptr(&self) -> *const u8 {
        self.as_ptr()
    }
    fn bytes_init(&self) -> usize {
        N
    }
}

/// A part of a buffer; see [`IoBuf::slice`].
#[derive(Debug)]
pub struct Slice<B> {
    buffer: B,
    begin: usize,
    end: usize,
}

impl<B> Slice<B> {
    /// The whole buffer again.
    pub fn into_inner(self) -> B {
        self.buffer
    }
}

// SAFETY: a part of memory that is valid by the contract of `B`; `begin` is clamped to it.
unsafe impl<B: IoBuf> IoBuf for Slice<B> {
    fn stable_ptr(&self) -> *const u8 {
        let begin = self.begin.min(self.buffer.bytes_init());
        self.buffer.stable_ptr().wrapping_add(begin)
    }
    fn bytes_init(&self) -> usize {
        self.end.min(self.buffer.bytes_init()).saturating_sub(self.begin)
    }
}

// SAFETY: a part of memory that is valid by the contract of `B`. Only a start inside the
// initialised bytes is accepted, so initialised bytes stay a prefix of the buffer.
unsafe impl<B: IoBufMut> IoBufMut for Slice<B> {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        let begin = self.begin.min(self.buffer.bytes_init());
        self.buffer.stable_mut_ptr().wrapping_add(begin)
    }
    fn bytes_total(&self) -> usize {
        if self.begin > self.buffer.bytes_init() {
            return 0;
        }
        self.end.min(self.buffer.bytes_total()).saturating_sub(self.begin)
    }
    unsafe fn set_init(&mut self, count: usize) {
        if count > 0 {
            // SAFETY: `count > 0` means `begin` is inside the initialised bytes, and the caller
            // says that `count` bytes from there are initialised too.
            unsafe { self.buffer.set_init(self.begin + count) };
        }
    }
}

/// Several buffers as one, for vectored operations.
#[derive(Debug)]
pub struct Vectored<B> {
    buffers: Vec<B>,
    iovecs: Box<[iovec]>,
}

impl<B: IoBuf> Vectored<B> {
    /// To write from: each buffer's initialised bytes, in order.
    pub fn for_write(buffers: Vec<B>) -> Self {
        let iovecs = buffers
            .iter()
            .map(|buffer| iovec {
                iov_base: buffer.stable_ptr().cast_mut().cast(),
                iov_len: buffer.bytes_init(),
            })
            .collect();
        Vectored { buffers, iovecs }
    }

    /// The buffers again.
    pub fn into_inner(self) -> Vec<B> {
        self.buffers
    }
}

/// Several buffers to read into; made by [`VectoredMut::new`](Vectored::for_read).
#[derive(Debug)]
pub struct VectoredMut<B>(Vectored<B>);

impl<B: IoBufMut> Vectored<B> {
    /// To read into: each buffer's initialised bytes, in order. (A short read must not leave
    /// bytes that look initialised, so spare capacity is not used.)
    pub fn for_read(mut buffers: Vec<B>) -> VectoredMut<B> {
        let iovecs = buffers
            .iter_mut()
            .map(|buffer| iovec {
                iov_len: buffer.bytes_init(),
                iov_base: buffer.stable_mut_ptr().cast(),
            })
            .collect();
        VectoredMut(Vectored { buffers, iovecs })
    }
}

impl<B> VectoredMut<B> {
    /// The buffers again.
    pub fn into_inner(self) -> Vec<B> {
        self.0.buffers
    }
}

// SAFETY: the array is boxed, the memory valid by the contract of `B`, and both are owned.
unsafe impl<B: IoBuf> IoVecs for Vectored<B> {
    fn iovecs(&self) -> (*const iovec, usize) {
        (self.iovecs.as_ptr(), self.iovecs.len())
    }
}

// SAFETY: as above.
unsafe impl<B: IoBufMut> IoVecs for VectoredMut<B> {
    fn iovecs(&self) -> (*const iovec, usize) {
        self.0.iovecs()
    }
}

// SAFETY: the addresses were taken through `stable_mut_ptr`.
unsafe impl<B: IoBufMut> IoVecsMut for VectoredMut<B> {}
