//! The block back end against a model driver on real files, under both drivers of the executor.

mod bed;
mod changes;
mod hostile;
mod images;
mod io;
mod lifecycle;
mod lost;
mod ranges;
mod takeover;
mod threads;
mod visits;
