//! Virtqueues.
