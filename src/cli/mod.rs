//! The commands: one file each, and what they share: the command line, the exit status, the way a failure is told.

pub mod add;
pub mod check;
pub mod completions;
pub mod demo;
pub mod history;
pub mod man;
pub mod reload;
pub mod run;
pub mod schema;
pub mod simulate;
pub mod status;
mod table;
pub mod wait;

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use tracing::Level;

use crate::config::{self, Loaded, Problems};
use crate::core::sanitize::Printable;
use crate::logging::journal;

/// Watches AWS HealthOmics reference import jobs until they end.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    max_term_width = 100,
    after_help = "Exit status: 0 done; 1 failed while running; 64 wrong use; 70 a fault of refwatch; 78 wrong configuration."
)]
pub struct CommandLine {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "REFWATCH_CONFIG",
        default_value = "/etc/refwatch/refwatch.toml"
    )]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground
    Run(run::Args),
    /// Show everything at work on a simulated HealthOmics: no account, no file, nothing left behind
    Demo(demo::Args),
    /// Serve a simulated HealthOmics
    Simulate(simulate::Args),
    /// Check the configuration and name every problem in it
    Check(check::Args),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Show every watch of the running daemon
    Status(status::Args),
    /// Put one job on the watch list, in a file of its own; the daemon takes it up by itself
    Add(add::Args),
    /// Ask the running daemon to read its configuration again, and wait until it has
    Reload(reload::Args),
    /// Show the transitions in the record, whether the daemon runs or not
    History(history::Args),
    /// Follow jobs to their end, without daemon or file
    Wait(wait::Args),
    /// Print what a shell needs to complete the command line
    Completions(completions::Args),
    /// Print the manual, in roff
    Man(man::Args),
}

/// The exit statuses that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; for `wait`: every job is COMPLETED.
    Done = 0,
    /// Failed while running.
    Failed = 1,
    /// `wait`: at least one job ended otherwise than COMPLETED.
    EndedOtherwise = 3,
    /// Wrong use (`EX_USAGE` of sysexits.h).
    Usage = 64,
    /// A fault of refwatch (`EX_SOFTWARE`).
    Fault = 70,
    /// Wrong configuration (`EX_CONFIG`). The unit does not restart on it.
    Config = 78,
    /// `wait`: time ran out, as with timeout(1).
    TimedOut = 124,
}

/// Why a command failed: what to tell on standard error, and the exit status.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub exit: Exit,
    /// What to tell, on one line or, for diagnostics, on many.
    pub message: String,
}

impl Failure {
    /// A failure while running.
    pub fn running(error: impl Display) -> Self {
        Self::new(Exit::Failed, error)
    }

    /// Wrong configuration.
    pub fn config(error: impl Display) -> Self {
        Self::new(Exit::Config, error)
    }

    /// Wrong configuration: a line for each problem. It may go to the journal, so it holds no line of the file.
    #[must_use]
    pub fn problems(problems: &Problems) -> Self {
        let lines: Vec<String> = problems.0.iter().map(|problem| format!("error: {problem}")).collect();
        Self { exit: Exit::Config, message: lines.join("\n") }
    }

    /// Wrong configuration: each problem with its line of the file.
    #[must_use]
    pub fn problems_with_source(problems: &Problems) -> Self {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { exit: Exit::Config, message: problems.render(colours) }
    }

    /// A failure with this exit status.
    pub fn new(exit: Exit, error: impl Display) -> Self {
        Self { exit, message: format!("error: {}", Printable(&error.to_string())) }
    }
}

impl CommandLine {
    /// Runs the command.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn run(self) -> Result<Exit, Failure> {
        match self.command {
            Command::Run(args) => Box::pin(run::run(&self.config, args)).await,
            Command::Demo(args) => Box::pin(demo::run(args)).await,
            Command::Simulate(args) => simulate::run(args).await,
            Command::Check(args) => Box::pin(check::run(&self.config, args)).await,
            Command::Schema => schema::run(),
            Command::Status(args) => status::run(&self.config, args).await,
            Command::Add(args) => add::run(&self.config, args).await,
            Command::Reload(args) => reload::run(&self.config, args).await,
            Command::History(args) => history::run(&self.config, args).await,
            Command::Wait(args) => wait::run(args).await,
            Command::Completions(args) => completions::run(args).await,
            Command::Man(args) => man::run(args).await,
        }
    }
}

/// Reads the configuration.
///
/// # Errors
/// Every problem that keeps it from being put in force.
pub fn load(path: &Path) -> Result<Loaded, Failure> {
    config::load(path).map_err(|problems| Failure::problems(&problems))
}

/// Writes a result to standard output. A reader that has gone (`refwatch history | head`) is no failure of ours.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(text: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::running(format_args!("standard output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a remark to standard error: progress, hints. Where it cannot be written, the results still can.
pub fn remark(text: impl Display) {
    drop(writeln!(io::stderr().lock(), "{}", Printable(&text.to_string())));
}

/// Tells on standard error what no log is told: why a command fails. Where it leads to the journal, that learns how severe it is.
pub fn complain(level: Level, message: &str) {
    let text = if journal::is_standard_error() { journal::prefixed(level, message) } else { format!("{message}\n") };
    // Where standard error cannot be written either, the exit status has to do.
    drop(io::stderr().lock().write_all(text.as_bytes()));
}
