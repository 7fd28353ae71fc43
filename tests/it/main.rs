//! Integration tests of the library and the program over real sockets, files and signals.
//!
//! They are one binary, so that it links once. `process`, `transition_rows`, `disk_faults`, `database`, `healthomics` and
//! `certificate_authority` also hold fixtures that other files use.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod access;
mod campaigns;
mod certificate_authority;
mod commands;
mod config;
mod daemon;
mod damage;
mod database;
mod demo;
mod discovery;
mod disk_faults;
mod documents;
mod failure_log;
mod faults;
mod healthomics;
mod history;
mod http;
mod journal;
mod kinds;
mod labels;
mod listing;
mod messages;
mod module_deps;
mod notify;
mod process;
mod reload;
mod rules;
mod service_database;
mod simulator;
mod terminal;
mod transition_rows;
mod untrusted_text;
