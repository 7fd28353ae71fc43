//! `refwatch run`.

use std::path::Path;

use super::{Exit, Failure};

/// Its arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it.
///
/// # Errors
/// Why it failed.
pub async fn run(config: &Path, args: Args) -> Result<Exit, Failure> {
    Ok(Exit::Done)
}
