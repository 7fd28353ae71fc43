//! Notifications of the transitions of jobs to sinks.

pub mod connection;
pub mod secrets;
pub mod signature;
