//! Campaigns against the database and its notifications: the same fault at each point where it can occur, thousands of times.
//!
//! `cargo test` runs a few cases of each. An environment variable sets their number, or selects one case as printed by a failure;
//! `tests/README.md` lists the variables. Each campaign prints a summary on one line.

mod disk;
mod errors;
mod kill;
mod notify;
mod power;
mod strace;
mod trace;

use std::env;
use std::fmt;
use std::thread;
use std::time::Duration;

/// The number in an environment variable, if it is set.
pub(crate) fn env_number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|env_number| env_number.parse().unwrap_or_else(|_| panic!("{variable}: a number")))
}

#[expect(clippy::print_stdout, reason = "the summary of a campaign")]
pub(crate) fn print_summary(summary: fmt::Arguments<'_>) {
    println!("{summary}");
}

#[expect(clippy::disallowed_methods, reason = "the time of a fault is random, and nothing to wait for precedes it")]
fn sleep(time: Duration) {
    thread::sleep(time);
}
