//! The agent as an ordinary process behind a Unix socket, driven by the host's half.

mod access;
mod commands;
mod ends;
mod files;
mod services;
mod support;
