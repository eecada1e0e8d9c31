//! The binary from outside, as far as it goes without a machine.

mod bench;
mod help;
mod support;
mod wrong_input;
