//! Machines with the built-in guest that are controlled by their sockets.

mod access;
mod changes;
mod events;
mod hostile;
mod lifecycle;
mod machine;
mod metrics;
mod processors;
