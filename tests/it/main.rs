//! The integration tests: one binary, so that it links once.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod access;
mod authority;
mod campaigns;
mod commands;
mod config;
mod daemon;
mod damage;
mod database;
mod documents;
mod faults;
mod foreign;
mod healthomics;
mod http;
mod journal;
mod listing;
mod module_deps;
mod process;
mod reload;
mod simulator;
mod store;
mod trouble;
mod truth;
