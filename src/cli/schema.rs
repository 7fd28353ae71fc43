//! `refwatch schema`: the JSON Schema of the configuration, which editors complete and check by.

use super::exit::{Exit, Failure, print};
use crate::config;

/// Runs it.
///
/// # Errors
/// Standard output cannot be written.
pub fn run() -> Result<Exit, Failure> {
    print(format_args!("{:#}\n", config::schema()))?;
    Ok(Exit::Done)
}
