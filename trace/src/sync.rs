//! What the rings stand on: the standard library's, and in `tests/models`, which compiles the same files,
//! loom's, which tries all orders in which two ends can see each other's steps.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{Ordering, fence};
