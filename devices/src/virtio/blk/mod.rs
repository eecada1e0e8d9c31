//! The block back end.
