//! `refwatch man`: the manual, a page for the program and one for each command.

use std::fs::File;
use std::iter;
use std::path::PathBuf;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::CommandLine;
use super::exit::{Exit, Failure, print};

/// Its arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The command whose page is printed [default: that of refwatch itself]
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
    /// Write every page to this directory
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    directory: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// There is no such command, or a page cannot be written.
#[expect(clippy::unused_async, reason = "every command is called the same way")]
pub async fn run(args: Args) -> Result<Exit, Failure> {
    let mut refwatch = CommandLine::command();
    refwatch.build();
    if let Some(directory) = args.directory {
        for page in iter::once(&refwatch).chain(refwatch.get_subcommands()).map(page) {
            let file = directory.join(page.get_filename());
            let failure = |error| Failure::running(format_args!("{}: {error}", file.display()));
            let mut written = File::create(&file).map_err(failure)?;
            page.render(&mut written).map_err(failure)?;
        }
        return Ok(Exit::Done);
    }
    let command = match &args.command {
        Some(name) => refwatch.find_subcommand(name).ok_or_else(|| missing(name))?,
        None => &refwatch,
    };
    let mut text = Vec::new();
    page(command).render(&mut text).map_err(Failure::running)?;
    print(String::from_utf8_lossy(&text))?;
    Ok(Exit::Done)
}

fn page(command: &Command) -> Man {
    Man::new(command.clone()).source(concat!("refwatch ", env!("CARGO_PKG_VERSION")))
}

fn missing(name: &str) -> Failure {
    Failure::new(Exit::Usage, format_args!("refwatch has no command {name}: see refwatch help"))
}
