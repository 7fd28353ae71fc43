//! `refwatch run`: the daemon, in the foreground, as systemd wants it.

use std::path::Path;

use super::{Exit, Failure, load};
use crate::config;
use crate::daemon::{Daemon, DaemonError};
use crate::logging;
use crate::record::{CommitError, OpenError};
use crate::signals::Signals;
use crate::supervisor::ApplyError;

/// Its arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it.
///
/// # Errors
/// Why it failed.
pub async fn run(path: &Path, Args {}: Args) -> Result<Exit, Failure> {
    let mut signals = Signals::install().map_err(Failure::running)?;
    let loaded = load(path)?;
    let log = logging::init(&loaded.config.log).map_err(Failure::running)?;
    let daemon = Daemon::start(loaded, log).await?;
    Box::pin(daemon.run(async || signals.next().await, || config::load(path))).await?;
    Ok(Exit::Done)
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        let exit = match &error {
            DaemonError::Open(OpenError::NewerSchema { .. }) => Exit::Config,
            // A region may come from an instance's metadata service that is not up yet, a record from a disk that is full:
            // starting again may help.
            DaemonError::Open(_)
            | DaemonError::Listen { .. }
            | DaemonError::Apply(
                ApplyError::Target(_)
                | ApplyError::Record(_)
                | ApplyError::Lost(CommitError::Sqlite(_) | CommitError::Reopen(_)),
            ) => Exit::Failed,
            DaemonError::Apply(ApplyError::Lost(CommitError::WriterGone))
            | DaemonError::Metrics(_)
            | DaemonError::ServerGone => Exit::Fault,
        };
        Self::new(exit, error)
    }
}
