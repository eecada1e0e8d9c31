//! `vmm device`, as front ends see it.

mod blk;
mod console;
mod guest;
mod several;
mod shared;
mod support;
mod threads;
