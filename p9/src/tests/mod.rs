//! The server, as clients on sockets see it.

mod client;
mod escapes;
mod hostile;
mod messages;
mod owners;
mod read_only;
