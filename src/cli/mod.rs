//! The command line. Each subcommand has its own file. `exit` and `table` have what subcommands share: exit statuses and output.

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
    after_help = "Exit status: 0 done; 1 failed while running; 64 wrong use; 70 internal error; 78 wrong configuration."
)]
pub struct CommandLine {
    /// The configuration file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "REFWATCH_CONFIG",
        default_value = "/etc/refwatch/refwatch.toml"
    )]
    pub config: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground
    Run,
    /// Run the daemon on a simulated HealthOmics; needs no account and leaves no files
    Demo(demo::Args),
    /// Serve a simulated HealthOmics
    Simulate(simulate::Args),
    /// Check the configuration and report every problem in it
    Check(check::Args),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Show every watch of the running daemon
    Status(status::Args),
    /// Add one job to the watch list, in its own file; the daemon reads the file without a reload
    Add(add::Args),
    /// Make the running daemon read its configuration again, and wait for the result
    Reload,
    /// Show the transitions in the database, whether the daemon runs or not
    History(history::Args),
    /// Wait until jobs have ended; needs no daemon and no configuration
    Wait(wait::Args),
    /// Print the completion script for a shell
    Completions { shell: Shell },
    /// Print the manual page, in roff
    Man {
        /// Write this page and one page per command to a directory
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

impl CommandLine {
    /// Runs the command and returns its exit status.
    ///
    /// # Errors
    /// Returns an exit status and a message for standard error.
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
