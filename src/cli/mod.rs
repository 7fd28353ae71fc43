//! The command line. Each subcommand has its own file; `exit` holds the exit status and the output that they share.

pub mod add;
pub mod check;
pub mod demo;
mod exit;
pub mod generate;
pub mod history;
pub mod reload;
pub mod run;
pub mod simulate;
pub mod status;
mod table;
pub mod wait;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

pub use exit::{Exit, Failure, log_fatal};

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
    Run,
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
    Reload,
    /// Show the transitions in the database, whether the daemon runs or not
    History(history::Args),
    /// Follow jobs to their end, without daemon or file
    Wait(wait::Args),
    /// Print what a shell needs to complete the command line
    Completions { shell: Shell },
    /// Print the manual, in roff
    Man {
        /// Write this page and one for each command to a directory
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

impl CommandLine {
    /// Runs the command.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn run(self) -> Result<Exit, Failure> {
        match self.command {
            Command::Check(args) => return Box::pin(check::run(&self.config, args)).await,
            Command::Wait(args) => return wait::run(args).await,
            Command::Run => Box::pin(run::run(&self.config)).await,
            Command::Demo(args) => Box::pin(demo::run(args)).await,
            Command::Simulate(args) => simulate::run(args).await,
            Command::Status(args) => status::run(&self.config, args).await,
            Command::Add(args) => add::run(&self.config, &args),
            Command::Reload => reload::run(&self.config).await,
            Command::History(args) => history::run(&self.config, args).await,
            Command::Schema => generate::schema(),
            Command::Completions { shell } => generate::completions(shell),
            Command::Man { directory } => generate::man(directory.as_deref()),
        }?;
        Ok(Exit::Done)
    }
}
