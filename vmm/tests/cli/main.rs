//! The binary from outside, as far as it goes without a machine.

mod help;
mod support;
mod wrong_input;
