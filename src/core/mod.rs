//! The rules of watching a job, and nothing else.
//!
//! Pure: no clock, no I/O, no log, no AWS and no SQL. Time comes in as [`time::Now`], chance as a seed, and what is to be
//! done goes out as a value. So every rule here is tested by a list of inputs and a list of answers.

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
