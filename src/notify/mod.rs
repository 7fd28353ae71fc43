//! Notifications of the transitions of jobs to sinks.

pub mod signature;
