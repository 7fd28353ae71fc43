//! Campaigns against the record: thousands of cases, each drawn from a seed. `cargo test` runs a few of each; how many, and
//! which one again, is said by environment variables, which a failure prints.

mod disk;
mod power;
mod trace;

/// What an environment variable says.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap_or_else(|error| panic!("{name}={number}: {error}")))
}

#[expect(clippy::print_stdout, reason = "the figures of a campaign")]
pub(crate) fn tell(figures: &str) {
    println!("{figures}");
}
