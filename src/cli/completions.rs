//! `refwatch completions`: what a shell needs to complete the command line.

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use super::CommandLine;
use super::exit::{Exit, Failure, print};

/// Its arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Runs it.
///
/// # Errors
/// Standard output cannot be written.
#[expect(clippy::unused_async, reason = "every command is called the same way")]
pub async fn run(Args { shell }: Args) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    generate(shell, &mut CommandLine::command(), env!("CARGO_PKG_NAME"), &mut script);
    print(String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
