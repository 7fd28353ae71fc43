//! `refwatch run`: runs the daemon in the foreground, as a systemd service requires.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::exit::{Exit, Failure};
use crate::config;
use crate::daemon::config_watcher::Loader;
use crate::daemon::signals::{SignalAction, Signals};
use crate::daemon::{Daemon, DaemonError, PreflightError, read_at_start, start_blocking_threads};
use crate::database::WriterError;
use crate::healthomics::TargetError;
use crate::logging;
use crate::tasks::supervisor::SupervisorError;

/// # Errors
/// Returns an error if the daemon cannot start or continue.
pub async fn run(path: &Path) -> Result<(), Failure> {
    let mut signals = Signals::install().map_err(Failure::running)?;
    let daemon = tokio::select! {
        daemon = Box::pin(start(path)) => daemon?,
        () = wait_for_stop(&mut signals) => return Ok(()),
    };
    Ok(Box::pin(daemon.run(async || signals.next().await)).await?)
}

async fn start(path: &Path) -> Result<Daemon, Failure> {
    start_blocking_threads().map_err(DaemonError::Threads)?;
    let main = path.to_owned();
    let load_config: Loader = Arc::new(move || config::load(&main));
    let first_load = Arc::clone(&load_config);
    let loaded = read_at_start("configuration files", move || first_load()).await?;
    let loaded = loaded.map_err(|problems| Failure::problems(&problems.0))?;
    let log = logging::init(&loaded.config.log).map_err(Failure::running)?;
    Ok(Daemon::start(loaded, load_config, log).await?)
}

/// Ignores reloads during the start: the configuration has just been read.
async fn wait_for_stop(signals: &mut Signals) {
    while signals.next().await == SignalAction::Reload {}
}

impl From<PreflightError> for Failure {
    fn from(error: PreflightError) -> Self {
        Self::preflight(&error)
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        let exit = match &error {
            DaemonError::Preflight(error) => return Self::preflight(error),
            // A directory that is missing counts: systemd would give up after 20 restarts, long before somebody mounts its disk.
            DaemonError::Open(error) if error.outlasts_restart() => Exit::Config,
            DaemonError::Apply(SupervisorError::Target(TargetError::NoRegion(_) | TargetError::Invalid(_))) => {
                Exit::Config
            }
            // Only root may use the port; an address may still be assigned, and a port in use be freed.
            DaemonError::Listen { error, .. } if error.kind() == ErrorKind::PermissionDenied => Exit::Config,
            DaemonError::Apply(SupervisorError::Fatal(WriterError::Stopped))
            | DaemonError::Metrics(_)
            | DaemonError::LoaderPanicked(_)
            | DaemonError::ServerStopped => Exit::InternalError,
            // A restart may help.
            DaemonError::Threads(_) | DaemonError::Open(_) | DaemonError::Listen { .. } | DaemonError::Apply(_) => {
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
    fn fault_095_systemd_restarts_a_daemon_whose_database_writer_has_stopped() {
        let stopped = DaemonError::Apply(SupervisorError::Fatal(WriterError::Stopped));
        assert_eq!(Failure::from(stopped).exit as u8, 70);
        let unit = include_str!("../../systemd/refwatch.service");
        let has = |setting| unit.lines().any(|line| line == setting);
        assert!(has("Restart=on-failure") && has("RestartPreventExitStatus=64 78"), "{unit}");
    }
}
