//! `vmm device`, as front ends see it.

mod blk;
mod shared;
mod support;
