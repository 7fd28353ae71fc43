//! refwatch.
pub mod board;
pub mod clock;
pub mod commands;
pub mod config;
pub mod core;
pub mod http;
pub mod instruments;
pub mod metrics;
pub mod omics;
pub mod record;
pub mod simulator;
