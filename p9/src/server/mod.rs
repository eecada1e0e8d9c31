//! A server of 9P2000.L.

mod answer;
mod connection;
mod connections;
mod fids;
mod files;
mod names;
mod session;
mod values;

pub use connections::{Connections, Serving};
pub use session::{Acl, Durability, Outcome, Session, SessionOptions};

use fileserver::Shape;

/// The longest message that is agreed to.
pub const MOST_MSIZE: u32 = 512 << 10;
/// The shortest: of a client that asks for less, no directory could be read.
const LEAST_MSIZE: u32 = 4096;
/// The most fids of one client. Linux keeps one for each file that it has in its cache of names.
const MOST_FIDS: usize = 1 << 18;

/// The ledger of a session with so many requests under way at a time.
pub const fn shape(places: usize) -> Shape {
    Shape { places, fids: MOST_FIDS }
}
