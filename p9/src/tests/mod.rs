//! The server, as clients on sockets see it.

mod client;
mod hostile;
mod messages;
