//! Periodic work of the daemon: the status line, the systemd watchdog, the count of dropped log lines, TLS files and old rows.
//!
//! It sends a watchdog ping only after the main loop, a task and the database have made progress. Work that may wait for a disk
//! runs in tasks of its own, so that it never delays the main loop. A round is skipped while the last one still runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::warn;

use super::systemd::{self, status_line};
use crate::core::time::{Monotonic, Timestamp};
use crate::database::WriterError;
use crate::http::tls::Tls;
use crate::logging::Log;
use crate::tasks::job_watcher::TaskContext;

/// The longest interval. A shorter watchdog shortens it.
const INTERVAL: Duration = Duration::from_secs(5);

const PRUNE_INTERVAL: Duration = Duration::from_hours(24);

pub(super) struct Maintenance {
    context: TaskContext,
    log: Log,
    tls: Option<Arc<Tls>>,
    /// How long rows are kept after the end of their job.
    retention: Duration,
    interval: Duration,
    next_round: Monotonic,
    next_prune: Monotonic,
    tasks: JoinSet<Result<(), WriterError>>,
}

impl Maintenance {
    pub(super) fn new(context: TaskContext, log: Log, tls: Option<Arc<Tls>>, retention: Duration) -> Self {
        let now = context.clock.now().monotonic;
        let interval = systemd::watchdog_interval().map_or(INTERVAL, |interval| interval.min(INTERVAL));
        let tasks = JoinSet::new();
        Self { context, log, tls, retention, interval, next_round: now + interval, next_prune: now, tasks }
    }

    /// Runs until the database's writer has stopped. Cancel safe. It must be polled by the main loop, whose progress the watchdog
    /// supervises.
    pub(super) async fn run(&mut self) -> WriterError {
        let clock = self.context.clock;
        loop {
            tokio::select! {
                biased;
                Some(done) = self.tasks.join_next() => {
                    // The panic hook has logged a panic. The next round tries again.
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
        systemd::status(&status_line(&context.board, now));
        if !self.tasks.is_empty() {
            return;
        }
        if let Some(tls) = self.tls.clone() {
            self.tasks.spawn_blocking(move || {
                tls.refresh();
                Ok(())
            });
        }
        let prune_before = (now.monotonic >= self.next_prune).then(|| {
            self.next_prune = now.monotonic + PRUNE_INTERVAL;
            now.wall.checked_sub(self.retention).unwrap_or(Timestamp::MIN)
        });
        self.tasks.spawn(maintain_database(context, prune_before));
    }
}

async fn maintain_database(context: TaskContext, prune_before: Option<Timestamp>) -> Result<(), WriterError> {
    let result = context.database.check().await;
    // A full disk is an answer, too: a restart would not help.
    systemd::alive();
    if let Err(WriterError::Stopped) = result {
        return result;
    }
    if let Some(before) = prune_before.filter(|_| result.is_ok()) {
        let watched = context.board.watches().iter().map(|watch| watch.id.clone()).collect();
        if let Err(error) = context.database.delete_ended_before(before, watched).await {
            warn!(event = "retention_failed", %error, "rows older than database.retention stay until the next attempt tomorrow");
        }
    }
    Ok(())
}
