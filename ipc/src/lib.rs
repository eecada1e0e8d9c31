//! `ipc`
