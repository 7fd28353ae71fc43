//! The rules of watching a job.
//!
//! Pure: no clock, no I/O, no log, no AWS and no SQL. Time and random seeds are arguments, and decisions are return values. Tests
//! are lists of inputs and expected outputs.

pub mod backoff;
pub mod breaker;
pub mod failure;
pub mod job;
pub mod listing;
pub mod pacer;
pub mod sanitize;
pub mod time;
pub mod tracker;
pub mod transition;
