//! Legacy devices of a PC.
