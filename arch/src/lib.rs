//! `arch`
