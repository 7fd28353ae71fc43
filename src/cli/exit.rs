//! Exit statuses, failures and terminal output of all subcommands.
//!
//! Failures and notes are sanitized here. A caller of `print` sanitizes its own text.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use tracing::Level;

use super::terminal::shows_colours;
use crate::config::{self, Loaded, Problems};
use crate::core::sanitize::Sanitized;
use crate::daemon::PreflightError;
use crate::logging::journal;

/// The exit statuses. Scripts and the systemd unit depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// For `wait`: every job is COMPLETED.
    Done = 0,
    Failed = 1,
    /// For `wait`: at least one job ended with another status than COMPLETED.
    NotCompleted = 3,
    /// `EX_USAGE` of sysexits.h.
    Usage = 64,
    /// `EX_SOFTWARE`.
    InternalError = 70,
    /// `EX_CONFIG`. systemd does not restart the daemon after it.
    Config = 78,
    /// For `wait`: the status that timeout(1) uses.
    TimedOut = 124,
}

#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    /// For standard error: one line, or one line per diagnostic.
    pub message: String,
}

impl Failure {
    pub fn running(error: impl Display) -> Self {
        Self::new(Exit::Failed, error)
    }

    pub fn usage(error: impl Display) -> Self {
        Self::new(Exit::Usage, error)
    }

    pub fn config(error: impl Display) -> Self {
        Self::new(Exit::Config, error)
    }

    /// One line per problem of the configuration. The message may go to the journal, so it quotes no line of the file.
    #[must_use]
    pub fn problems(problems: &[impl Display]) -> Self {
        let lines = problems.iter().map(|problem| Self::config(problem).message);
        Self { exit: Exit::Config, message: lines.collect::<Vec<_>>().join("\n") }
    }

    /// On a terminal, also quotes the line of each problem: its user may read the file.
    #[must_use]
    pub fn problems_with_source(problems: &Problems) -> Self {
        if !io::stderr().is_terminal() {
            return Self::problems(&problems.0);
        }
        Self { exit: Exit::Config, message: problems.render(shows_colours(&io::stderr())) }
    }

    /// One line per problem of the configuration.
    #[must_use]
    pub fn preflight(error: &PreflightError) -> Self {
        match error {
            PreflightError::Config(errors) => Self::problems(errors),
            // A restart may help.
            PreflightError::FilesTimeout { .. } | PreflightError::Target(_) => Self::running(error),
            PreflightError::Panicked(_) => Self::new(Exit::InternalError, error),
        }
    }

    pub fn new(exit: Exit, error: impl Display) -> Self {
        Self { exit, message: format!("error: {}", Sanitized(&error.to_string())) }
    }
}

/// # Errors
/// Returns every problem of the main file.
pub(super) fn load(path: &Path) -> Result<Loaded, Failure> {
    config::load(path).map_err(|problems| Failure::problems(&problems.0))
}

/// Writes a result to standard output.
///
/// # Errors
/// Returns an error if the write fails, but not for a closed pipe (`refwatch history | head`).
pub(super) fn print(text: impl Display) -> Result<(), Failure> {
    print_to_reader(text).map(drop)
}

/// Writes a result to standard output. Returns false if it is a closed pipe: a command that prints until it is stopped then ends.
///
/// # Errors
/// Returns an error if the write fails.
pub(super) fn print_to_reader(text: impl Display) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(!is_closed_pipe(&out)),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::running(format_args!("cannot write to standard output: {error}"))),
    }
}

/// Whether `out` is a pipe without a reader. The write of an empty text does not show it.
fn is_closed_pipe(out: &impl AsFd) -> bool {
    let mut descriptors = [PollFd::new(out, PollFlags::empty())];
    let polled = poll(&mut descriptors, Some(&Timespec::default()));
    polled.is_ok() && descriptors[0].revents().contains(PollFlags::ERR)
}

/// JSON on one line, sanitized.
pub(super) fn json_line<T: Serialize + ?Sized>(value: &T) -> Result<String, Failure> {
    let json = serde_json::to_string(value).map_err(Failure::running)?;
    Ok(format!("{}\n", Sanitized(&json)))
}

/// Such as: 1 job, 2 jobs.
pub(super) fn count(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Such as: 13 COMPLETED, 1 FAILED.
pub(super) fn count_each<'a>(labels: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for label in labels {
        *counts.entry(label).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(label, count)| format!("{count} {}", Sanitized(label))).collect();
    counts.join(", ")
}

/// Writes progress or a note to standard error. Errors are ignored, so that results can still be written.
pub(super) fn print_note(text: impl Display) {
    drop(writeln!(io::stderr().lock(), "{}", Sanitized(&text.to_string())));
}

/// Writes the error of a command to standard error, with a priority if standard error goes to the journal.
pub fn log_fatal(level: Level, message: &str) {
    let text = if journal::is_standard_error() { journal::prefixed(level, message) } else { format!("{message}\n") };
    // If this fails, the exit status still reports the failure.
    drop(io::stderr().lock().write_all(text.as_bytes()));
}
