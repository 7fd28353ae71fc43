//! `refwatch check`: says every problem of the configuration at once, each with its place, or that there is none.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{IsTerminal as _, stderr};
use std::path::Path;

use super::{Exit, Failure, print};
use crate::config::{Loaded, Problems, load};
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
    let Loaded { config: loaded, problems, files: _ } = load(config).map_err(|problems| failure(&problems))?;
    if !problems.is_empty() {
        return Err(failure(&problems));
    }
    let jobs = &loaded.watch_list.jobs;
    let targets: BTreeSet<&str> = jobs.keys().map(|id| &*id.target).collect();
    let (jobs, targets) = (count(jobs.len(), "job"), count(targets.len(), "target"));
    print(format_args!("{}: {jobs} on {targets}, no problems\n", Printable(&config.to_string_lossy())))?;
    Ok(Exit::Done)
}

fn failure(problems: &Problems) -> Failure {
    let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Failure::config(problems.render(colours))
}

fn count(number: usize, what: &str) -> impl Display {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
