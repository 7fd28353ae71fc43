//! Campaigns against the record: the same trouble at every point where it can strike, hundreds of times. `cargo test` runs a few of
//! each; an environment variable asks for more of one (`KILLS`, `DISK_ERRORS`), or for one alone by its number (`KILL`,
//! `DISK_ERROR`). Each says in a line of figures what it did.

mod errors;
mod kill;
mod strace;

use std::env;
use std::fmt;
use std::thread;
use std::time::Duration;

/// The number that a variable of the environment has, where it is set.
fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|number| number.parse().unwrap_or_else(|_| panic!("{variable}: a number")))
}

#[expect(clippy::print_stdout, reason = "whoever asks for a campaign wants to see its figures")]
fn say(what: fmt::Arguments<'_>) {
    println!("{what}");
}

#[expect(clippy::disallowed_methods, reason = "when trouble strikes is drawn, and nothing announces it")]
fn pass(time: Duration) {
    thread::sleep(time);
}
