//! Campaigns against the database: the same trouble at every point where it can strike, thousands of times. `cargo test` runs a few of
//! each; an environment variable asks for more of one, or for a single case by its number, as a failure prints it:
//! `tests/README.md` has them all. Each says in a line of figures what it did.

mod disk;
mod errors;
mod kill;
mod power;
mod strace;
mod trace;

use std::env;
use std::fmt;
use std::thread;
use std::time::Duration;

/// The number that a variable of the environment has, where it is set.
pub(crate) fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|number| number.parse().unwrap_or_else(|_| panic!("{variable}: a number")))
}

#[expect(clippy::print_stdout, reason = "whoever asks for a campaign wants to see its figures")]
pub(crate) fn say(what: fmt::Arguments<'_>) {
    println!("{what}");
}

#[expect(clippy::disallowed_methods, reason = "when trouble strikes is drawn, and nothing announces it")]
fn pass(time: Duration) {
    thread::sleep(time);
}
