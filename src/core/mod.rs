//! The rules of watching a job.
//!
//! Pure: no I/O, log, AWS or SQL. Callers pass in the time and random seeds, and decisions are return values. Most tests are lists
//! of inputs and expected outputs; some are property tests or simulations.

pub mod backoff;
pub mod breaker;
pub mod delivery;
pub mod event;
pub mod failure;
mod items;
pub mod job;
pub mod kind;
pub mod limits;
pub mod listing;
pub mod pacer;
pub mod sanitize;
pub mod secret;
pub mod time;
pub mod tracker;
pub mod transition;
