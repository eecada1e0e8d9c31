//! What actors do, written down as they do it.
//!
//! ```text
//!   actor ──Record──► Writer ──► Ring (memory of the VMM) ──Reader──► chunks ──► TraceFile
//!                                 one for each actor          │
//!                                 never waits for anybody     └── what was overwritten is counted
//! ```
//!
//! An actor in a sandbox gets the memory of its ring and nothing else. It may write anything there: who
//! reads a ring or a file takes it for hostile.

mod block;
mod file;
mod memory;
mod record;
mod ring;
mod short;
mod stream;
mod sync;

pub use file::{Appender, Entry, Event, Timeline, TraceError, TraceFile};
pub use record::{Began, Given, Operation, Piece, QueuePlace, Record};
pub use ring::{Reader, Ring, Writer};
pub use stream::{Malformed, Records};
