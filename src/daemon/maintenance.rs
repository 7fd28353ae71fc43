//! Periodic maintenance: the status line, the systemd watchdog, the count of dropped log lines, TLS files, and deletion of old rows.
//!
//! A watchdog ping is sent only after the main loop, a task and the database have made progress. Disk access runs in separate tasks,
//! so that it never delays the main loop. A task is started again only after it has ended. The TLS files may be on a file system that
//! hangs, so the watchdog does not wait for them.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::task::JoinMap;
use tracing::warn;

use super::systemd::{self, status_line};
use crate::core::time::{Monotonic, Timestamp};
use crate::database::WriterError;
use crate::http::tls::Tls;
use crate::logging::Log;
use crate::state::SharedState;
use crate::tasks::context::TaskContext;

/// The maximum time between two rounds. A shorter watchdog interval replaces it.
const INTERVAL: Duration = Duration::from_secs(5);

const PRUNE_INTERVAL: Duration = Duration::from_hours(24);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Task {
    /// Tests the database and pings the watchdog.
    Probe,
    /// Deletes old rows. It may take minutes, so the watchdog does not wait for it.
    Prune,
}

pub(super) struct Maintenance {
    context: TaskContext,
    log: Log,
    tls: Option<Arc<Tls>>,
    retention: Duration,
    interval: Duration,
    next_round: Monotonic,
    next_prune: Monotonic,
    tasks: JoinMap<Task, Result<(), WriterError>>,
    tls_refresh: Option<JoinHandle<()>>,
}

impl Maintenance {
    pub(super) fn new(context: TaskContext, log: Log, tls: Option<Arc<Tls>>, retention: Duration) -> Self {
        let now = context.clock.now().monotonic;
        let interval = systemd::watchdog_interval().map_or(INTERVAL, |interval| interval.min(INTERVAL));
        let tasks = JoinMap::new();
        Self {
            context,
            log,
            tls,
            retention,
            interval,
            next_round: now + interval,
            next_prune: now,
            tasks,
            tls_refresh: None,
        }
    }

    /// Runs until the database's writer has stopped. Cancel safe. The main loop must poll it, because the watchdog supervises the
    /// main loop's progress.
    pub(super) async fn run(&mut self) -> WriterError {
        let clock = self.context.clock;
        loop {
            tokio::select! {
                biased;
                Some((_, done)) = self.tasks.join_next() => {
                    // The panic hook logs a panic.
                    if let Ok(Err(error)) = done {
                        return error;
                    }
                }
                () = clock.sleep_until(self.next_round) => {
                    self.begin_round();
                    self.next_round = clock.now().monotonic + self.interval;
                }
            }
        }
    }

    fn begin_round(&mut self) {
        let context = self.context.clone();
        let now = context.clock.now();
        let dropped = &context.instruments.log_lines_dropped;
        dropped.inc_by(self.log.lines_dropped().saturating_sub(dropped.get()));
        systemd::status(&status_line(&context.shared, now));
        if let Some(tls) = self.tls.clone() {
            publish_certificate(&context.shared, Some(&tls));
            if self.tls_refresh.as_ref().is_none_or(JoinHandle::is_finished) {
                self.tls_refresh = Some(spawn_blocking(move || tls.refresh()));
            } else {
                tls.report_stuck_refresh();
            }
        }
        if !self.tasks.contains_key(&Task::Probe) {
            self.tasks.spawn(Task::Probe, probe(context.clone()));
        }
        if now.monotonic >= self.next_prune && !self.tasks.contains_key(&Task::Prune) {
            self.next_prune = now.monotonic + PRUNE_INTERVAL;
            let before = now.wall.checked_sub(self.retention).unwrap_or(Timestamp::MIN);
            self.tasks.spawn(Task::Prune, prune(context, before));
        }
    }
}

pub(super) fn publish_certificate(shared: &SharedState, tls: Option<&Tls>) {
    let expires_at = tls.and_then(Tls::expires_at);
    shared.update_daemon(|daemon| daemon.certificate_expires_at = expires_at);
}

/// # Errors
/// The writer has stopped.
async fn probe(context: TaskContext) -> Result<(), WriterError> {
    if let Err(error @ WriterError::Stopped) = context.database.probe().await {
        return Err(error);
    }
    // Also after an error such as a full disk, because a restart would not help.
    systemd::ping_watchdog();
    Ok(())
}

/// # Errors
/// The writer has stopped.
async fn prune(context: TaskContext, before: Timestamp) -> Result<(), WriterError> {
    let watched = context.shared.watches().iter().map(|watch| watch.id.clone()).collect();
    match context.database.delete_ended_before(before, watched).await {
        Ok(_) => {}
        Err(error @ WriterError::Stopped) => return Err(error),
        Err(error) => {
            warn!(event = "retention_failed", %error, "cannot delete rows older than database.retention; the next attempt is in 24 h");
        }
    }
    Ok(())
}
