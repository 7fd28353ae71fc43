//! The command line. Subcommands share exit statuses (`exit`) and output (`table`, `terminal`).

pub mod add;
pub mod check;
pub mod demo;
mod demo_directory;
mod exit;
pub mod generate;
mod help;
pub mod history;
mod manual;
pub mod notify;
mod own_daemon;
pub mod reload;
pub mod remove;
pub mod rules;
pub mod run;
pub mod simulate;
mod simulate_sink;
pub mod status;
mod table;
mod terminal;
pub mod wait;

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::daemon::signals::end_process_1_on_signals;

pub use exit::{Exit, Failure, log_fatal};

/// The place of the options of every command in the help of one.
const AFTER_OWN_OPTIONS: usize = 100;

/// The commands that read no configuration. They reject `--config`, and their help does not show it.
const WITHOUT_CONFIGURATION: [&str; 6] = ["completions", "demo", "man", "schema", "simulate", "wait"];

/// Watches AWS HealthOmics import, export and activation jobs until they end.
#[derive(Debug, Parser)]
#[command(
    version = crate::version::VERSION.as_str(),
    about,
    max_term_width = 100
)]
pub struct CommandLine {
    /// The configuration file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "REFWATCH_CONFIG",
        default_value = "/etc/refwatch/refwatch.toml",
        display_order = AFTER_OWN_OPTIONS
    )]
    pub config: PathBuf,
    /// When output has colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", display_order = AFTER_OWN_OPTIONS)]
    pub color: ColorChoice,
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
    /// Print the rules for Prometheus: alerts that link to the runbook of this daemon
    Rules(rules::Args),
    /// Show every watch of the running daemon
    Status(status::Args),
    /// Add one job to the watch list, in its own file; the daemon reads the file without a reload
    Add(add::Args),
    /// Remove one job from the files of conf.d; the daemon reads them without a reload
    Remove(remove::Args),
    /// Make the running daemon read its configuration again, and wait for the result
    Reload,
    /// Test sinks, show what they have received, and send past events again
    #[command(subcommand)]
    Notify(notify::NotifyCommand),
    /// Show the transitions in the database, whether the daemon runs or not
    History(history::Args),
    /// Wait until jobs have ended; needs no daemon and no configuration
    Wait(wait::Args),
    /// Print the completion script for a shell
    Completions { shell: Shell },
    /// Print the manual page, in roff
    Man {
        /// Write this page, one page per command, and refwatch.toml(5) to a directory
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

/// Parses one of `words`. With `ignore_case`, the result has the case of the word.
fn one_of(words: impl IntoIterator<Item = &'static str>) -> impl TypedValueParser<Value = &'static str> {
    let words: Vec<&str> = words.into_iter().collect();
    let parser = PossibleValuesParser::new(words.clone());
    parser.try_map(move |text| words.iter().copied().find(|word| word.eq_ignore_ascii_case(&text)).ok_or("unknown"))
}

/// The definition of the command line, for the parser, the completions and the manual pages.
fn definition() -> clap::Command {
    let definition = CommandLine::command();
    let hidden = definition.get_arguments().find(|argument| argument.get_id() == "config").cloned();
    let hidden = hidden.map(|config| config.hide(true));
    let definition = definition.mut_subcommands(|command| {
        let is_without = WITHOUT_CONFIGURATION.contains(&command.get_name());
        // clap adds a global argument to the commands that do not have it.
        command.args(hidden.iter().filter(|_| is_without))
    });
    with_examples(definition, "refwatch")
}

/// Adds the examples to the help of a command such as "refwatch notify", and of its subcommands.
fn with_examples(command: clap::Command, name: &str) -> clap::Command {
    let command = command.after_help(help::after_help(name));
    command.mut_subcommands(|subcommand| {
        let name = format!("{name} {}", subcommand.get_name());
        with_examples(subcommand, &name)
    })
}

impl CommandLine {
    /// Parses the arguments of this process.
    ///
    /// # Errors
    /// Wrong use, or a request for help or for the version.
    pub fn from_arguments() -> Result<Self, clap::Error> {
        let colour = if terminal::has_type() { ColorChoice::Auto } else { ColorChoice::Never };
        let mut command = definition().color(colour);
        let matches = command.try_get_matches_from_mut(std::env::args_os())?;
        let command_line = Self::from_arg_matches(&matches)?;
        let is_given = matches.value_source("config") == Some(ValueSource::CommandLine);
        match matches.subcommand_name() {
            Some(name) if is_given && WITHOUT_CONFIGURATION.contains(&name) => {
                let message = format!("refwatch {name} reads no configuration: remove --config");
                Err(command.error(ErrorKind::ArgumentConflict, message))
            }
            _ => Ok(command_line),
        }
    }

    /// Runs the command and returns its exit status.
    ///
    /// # Errors
    /// Returns an exit status and a message for standard error.
    pub async fn run(self) -> Result<Exit, Failure> {
        terminal::set_color(self.color);
        // `run`, `demo` and `simulate` handle signals themselves.
        if !matches!(self.command, Command::Run | Command::Demo(_) | Command::Simulate(_)) {
            end_process_1_on_signals().map_err(Failure::running)?;
        }
        match self.command {
            Command::Check(args) => return Box::pin(check::run(&self.config, args)).await,
            Command::Wait(args) => return wait::run(args).await,
            Command::Run => Box::pin(run::run(&self.config)).await,
            Command::Demo(args) => Box::pin(demo::run(args)).await,
            Command::Simulate(args) => simulate::run(args).await,
            Command::Status(args) => status::run(&self.config, args).await,
            Command::Add(args) => add::run(&self.config, &args),
            Command::Remove(args) => remove::run(&self.config, &args),
            Command::Reload => reload::run(&self.config).await,
            Command::Notify(command) => notify::run(&self.config, command).await,
            Command::History(args) => history::run(&self.config, args).await,
            Command::Rules(args) => rules::run(&self.config, &args),
            Command::Schema => generate::schema(),
            Command::Completions { shell } => generate::completions(shell),
            Command::Man { directory } => generate::man(directory.as_deref()),
        }?;
        Ok(Exit::Done)
    }
}
