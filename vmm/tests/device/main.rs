//! `vmm device`, as front ends see it.

mod blk;
mod console;
mod shared;
mod support;
