//! `refwatch run`: the daemon, in the foreground, as systemd wants it.

use std::path::Path;

use super::{Exit, Failure, load};
use crate::daemon::{Daemon, DaemonError};
use crate::record::OpenError;
use crate::signals::Signals;
use crate::supervisor::ApplyError;
use crate::{config, logging};

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
            DaemonError::Open(OpenError::NewerSchema { .. }) | DaemonError::Apply(ApplyError::Target(_)) => {
                Exit::Config
            }
            DaemonError::Open(_) | DaemonError::Listen { .. } => Exit::Failed,
            DaemonError::Apply(ApplyError::Record(_)) | DaemonError::Metrics(_) | DaemonError::ServerGone => {
                Exit::Fault
            }
        };
        Self::new(exit, error)
    }
}
