//! Deterministic simulation of the back ends: a model driver on one side, a model of the host on the
//! other, and a seed that decides what happens in which order and what goes wrong.
//!
//! ```text
//!   hunt: seeds ──► world ──┬── stage: machine (memory, rings, kicks) + model (driver, host, oracle)
//!                           │         ▲ between any two stores of the device
//!                           └── actor: the back end as it is, on the executor's sim driver
//! ```
//!
//! A [`world`] is one run of one seed. It lets the model act, lets the actor run for some turns, and
//! now and then pauses, resets, restarts or kills it, at rest or between any two of its steps. What
//! must hold is checked by the [`model`], all the time and at the end, when faults are over and
//! everything that was asked for must have been answered.

#![forbid(unsafe_code)]

pub mod actor;
pub mod hunt;
pub mod machine;
pub mod minimise;
pub mod model;
pub mod models;
pub mod planted;
pub mod settings;
pub mod world;

mod lifecycle;
mod stage;
