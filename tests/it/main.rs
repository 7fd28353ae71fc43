//! The integration tests: one binary, so that it links once.

mod commands;
mod config;
mod daemon;
mod http;
mod omics;
mod process;
mod record;
mod simulator;
