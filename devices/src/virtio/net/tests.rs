//! The network back end against a model driver: over sockets under both drivers of the executor,
//! and over a real tap.

mod bed;
mod control;
mod hostile;
mod lifecycle;
mod limits;
mod real;
mod receive;
mod strangers;
mod transmit;
mod visits;
