//! The integration tests: one binary, so that it links once.

mod commands;
mod config;
mod daemon;
mod house;
mod http;
mod omics;
mod process;
mod simulator;
