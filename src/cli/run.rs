//! `refwatch run`: the daemon, in the foreground, as systemd wants it.

use std::path::Path;
use std::sync::Arc;

use super::exit::{Exit, Failure, load};
use crate::config;
use crate::daemon::signals::{Asked, Signals};
use crate::daemon::{Daemon, DaemonError};
use crate::database::{OpenError, WriterError};
use crate::logging;
use crate::tasks::supervisor::ApplyError;

/// # Errors
/// Why it failed.
pub async fn run(path: &Path) -> Result<(), Failure> {
    let mut signals = Signals::install().map_err(Failure::running)?;
    let loaded = load(path)?;
    let log = logging::init(&loaded.config.log).map_err(Failure::running)?;
    let main = path.to_owned();
    let load_config = Arc::new(move || config::load(&main));
    let daemon = tokio::select! {
        daemon = Daemon::start(loaded, load_config, log) => daemon?,
        () = wait_for_stop(&mut signals) => return Ok(()),
    };
    Ok(Box::pin(daemon.run(async || signals.next().await)).await?)
}

/// Ignores reloads: the configuration has just been read.
async fn wait_for_stop(signals: &mut Signals) {
    while signals.next().await == Asked::Reload {}
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        let exit = match &error {
            DaemonError::Open(OpenError::NewerSchema { .. }) => Exit::Config,
            DaemonError::Apply(ApplyError::Lost(WriterError::Stopped))
            | DaemonError::Metrics(_)
            | DaemonError::Reading(_)
            | DaemonError::ServerGone => Exit::Fault,
            // Starting again may help, even without a region: it may come from a metadata service that is not up yet.
            DaemonError::Open(_) | DaemonError::Listen { .. } | DaemonError::Tls(_) | DaemonError::Apply(_) => {
                Exit::Failed
            }
        };
        Self::new(exit, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_095_systemd_starts_a_daemon_again_whose_recording_thread_is_dead() {
        let dead = DaemonError::Apply(ApplyError::Lost(WriterError::Stopped));
        assert_eq!(Failure::from(dead).exit as u8, 70);
        let unit = include_str!("../../systemd/refwatch.service");
        let told = |line| unit.lines().any(|told| told == line);
        assert!(told("Restart=on-failure") && told("RestartPreventExitStatus=64 78"), "{unit}");
    }
}
