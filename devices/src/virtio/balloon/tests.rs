//! The balloon back end against a model driver, under both drivers of the executor and over both
//! ring formats.

mod bed;
mod config;
mod hostile;
mod lifecycle;
mod pages;
mod statistics;
