//! Memory for tasks: blocks of a few sizes, kept by each thread for its next tasks.
//!
//! Programs spawn the same few kinds of tasks again and again. A general allocator merges and
//! splits their blocks each time; here a block goes on top of a stack and comes off it again,
//! still in the cache.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::{self, NonNull};

/// Sizes are multiples of a cache line.
const STEP: usize = 64;
/// Larger tasks are rare, and their own work costs more than an allocation.
const CLASSES: usize = 16;
/// What a thread keeps of one size: a thousand small tasks.
const KEPT_BYTES: usize = 128 * 1024;
const ALIGNMENT: usize = 16;

/// A free block; the rest of it is unused.
struct Block {
    next: *mut Block,
}

#[derive(Clone, Copy)]
struct Stack {
    top: *mut Block,
    count: usize,
}

struct Pool {
    stacks: [Cell<Stack>; CLASSES],
}

thread_local! {
    static POOL: Pool = const {
        Pool { stacks: [const { Cell::new(Stack { top: ptr::null_mut(), count: 0 }) }; CLASSES] }
    };
}

/// The class of a layout and the layout of that class's blocks.
const fn class_of(layout: Layout) -> Option<(usize, Layout)> {
    if layout.size() == 0 || layout.size() > STEP * CLASSES || layout.align() > ALIGNMENT {
        return None;
    }
    let class = (layout.size() - 1) / STEP;
    match Layout::from_size_align((class + 1) * STEP, ALIGNMENT) {
        Ok(layout) => Some((class, layout)),
        Err(_) => None,
    }
}

/// Memory for a `T`, uninitialised.
pub(super) fn allocate<T>() -> NonNull<T> {
    let layout = const { Layout::new::<T>() };
    let Some((class, layout)) = (const { class_of(Layout::new::<T>()) }) else {
        return fresh(layout).cast();
    };
    let block = POOL.try_with(|pool| pool.take(class)).ok().flatten();
    block.unwrap_or_else(|| fresh(layout)).cast()
}

fn fresh(layout: Layout) -> NonNull<u8> {
    // A task has a head, so its size is not zero.
    assert!(layout.size() > 0, "a task of no size");
    // SAFETY: the size is not zero.
    NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Gives the memory of a `T` back, on any thread.
///
/// # Safety
///
/// `memory` comes from `allocate::<T>`, what was in it was dropped, and nothing uses it any more.
pub(super) unsafe fn free<T>(memory: NonNull<T>) {
    let layout = const { Layout::new::<T>() };
    let Some((class, layout)) = (const { class_of(Layout::new::<T>()) }) else {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(memory.as_ptr().cast(), layout) };
        return;
    };
    let kept = POOL.try_with(|pool| pool.keep(class, memory.cast())).unwrap_or(false);
    if !kept {
        // SAFETY: blocks of a class are allocated with the class's layout.
        unsafe { dealloc(memory.as_ptr().cast(), layout) };
    }
}

impl Pool {
    fn take(&self, class: usize) -> Option<NonNull<u8>> {
        let stack = &self.stacks[class];
        let Stack { top, count } = stack.get();
        let block = NonNull::new(top)?;
        // SAFETY: what is on the stack is a free block of ours.
        let next = unsafe { block.as_ref() }.next;
        stack.set(Stack { top: next, count: count - 1 });
        Some(block.cast())
    }

    /// False when the thread keeps enough of that size already.
    fn keep(&self, class: usize, block: NonNull<Block>) -> bool {
        let stack = &self.stacks[class];
        let Stack { top, count } = stack.get();
        if count >= KEPT_BYTES / ((class + 1) * STEP) {
            return false;
        }
        // SAFETY: the block is large enough and aligned for a link, and nobody else uses it.
        unsafe { block.write(Block { next: top }) };
        stack.set(Stack { top: block.as_ptr(), count: count + 1 });
        true
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (class, stack) in self.stacks.iter().enumerate() {
            let Ok(layout) = Layout::from_size_align((class + 1) * STEP, ALIGNMENT) else {
                continue;
            };
            let mut top = stack.replace(Stack { top: ptr::null_mut(), count: 0 }).top;
            while let Some(block) = NonNull::new(top) {
                // SAFETY: a free block of ours, allocated with the class's layout.
                unsafe {
                    top = block.as_ref().next;
                    dealloc(block.as_ptr().cast(), layout);
                }
            }
        }
    }
}
