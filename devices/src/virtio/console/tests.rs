//! The console back end against a model driver, over sockets, under both drivers of the executor.

mod bed;
mod control;
mod data;
mod hostile;
mod lifecycle;
