//! `seccomp`
