//! The integration tests: one binary, so that it links once.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod access;
mod authority;
mod campaigns;
mod commands;
mod config;
mod daemon;
mod damage;
mod documents;
mod faults;
mod foreign;
mod house;
mod http;
mod journal;
mod omics;
mod process;
mod record;
mod reload;
mod simulator;
mod store;
mod sweep;
mod trouble;
mod truth;
