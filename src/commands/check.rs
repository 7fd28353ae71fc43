//! `refwatch check`: says every problem of the configuration at once, each with its place, or that there is none.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;

use super::{Exit, Failure, load, print};
use crate::config::Loaded;
use crate::core::text::Printable;

/// Its arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it.
///
/// # Errors
/// Every problem of the configuration, included files counted in.
#[expect(clippy::unused_async, reason = "every command is called the same way")]
pub async fn run(config: &Path, _args: Args) -> Result<Exit, Failure> {
    let Loaded { config: loaded, problems } = load(config)?;
    if !problems.is_empty() {
        return Err(Failure::problems(&problems));
    }
    let jobs = &loaded.watch_list.jobs;
    let targets: BTreeSet<&str> = jobs.keys().map(|id| &*id.target).collect();
    let (jobs, targets) = (count(jobs.len(), "job"), count(targets.len(), "target"));
    print(format_args!("{}: {jobs} on {targets}, no problems\n", Printable(&config.to_string_lossy())))?;
    Ok(Exit::Done)
}

fn count(number: usize, what: &str) -> impl Display {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
