//! refwatch.
pub mod board;
pub mod clock;
pub mod commands;
pub mod config;
pub mod core;
pub mod daemon;
pub mod http;
pub mod instruments;
pub mod logging;
pub mod metrics;
pub mod omics;
pub mod record;
pub mod signals;
pub mod simulator;
pub mod supervisor;
pub mod systemd;
pub mod watcher;
