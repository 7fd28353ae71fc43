//! Periodic maintenance: the status line, the systemd watchdog, the count of dropped log lines, TLS files, and deletion of old rows.
//!
//! A watchdog ping is sent only after the main loop, a task and the database have made progress. Disk access runs in separate tasks,
//! so that it never delays the main loop. A task is started again only after it has ended. The TLS files may be on a file system that
//! hangs, so the watchdog does not wait for them.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tracing::warn;

use super::systemd::{self, status_line};
use crate::core::time::{Monotonic, Timestamp};
use crate::database::WriterError;
use crate::http::tls::Tls;
use crate::logging::Log;
use crate::tasks::job_watcher::TaskContext;

/// The maximum time between two rounds. A shorter watchdog interval replaces it.
const INTERVAL: Duration = Duration::from_secs(5);

const PRUNE_INTERVAL: Duration = Duration::from_hours(24);

pub(super) struct Maintenance {
    context: TaskContext,
    log: Log,
    tls: Option<Arc<Tls>>,
    retention: Duration,
    interval: Duration,
    next_round: Monotonic,
    next_prune: Monotonic,
    tasks: JoinSet<Result<(), WriterError>>,
    tls_refresh: Option<JoinHandle<()>>,
}

impl Maintenance {
    pub(super) fn new(context: TaskContext, log: Log, tls: Option<Arc<Tls>>, retention: Duration) -> Self {
        let now = context.clock.now().monotonic;
        let interval = systemd::watchdog_interval().map_or(INTERVAL, |interval| interval.min(INTERVAL));
        let tasks = JoinSet::new();
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
                Some(done) = self.tasks.join_next() => {
                    // The panic hook logs a panic. The next round tries again.
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
            if self.tls_refresh.as_ref().is_none_or(JoinHandle::is_finished) {
                self.tls_refresh = Some(spawn_blocking(move || tls.refresh()));
            } else {
                tls.report_stuck_refresh();
            }
        }
        if !self.tasks.is_empty() {
            return;
        }
        let prune_before = (now.monotonic >= self.next_prune).then(|| {
            self.next_prune = now.monotonic + PRUNE_INTERVAL;
            now.wall.checked_sub(self.retention).unwrap_or(Timestamp::MIN)
        });
        self.tasks.spawn(maintain_database(context, prune_before));
    }
}

async fn maintain_database(context: TaskContext, prune_before: Option<Timestamp>) -> Result<(), WriterError> {
    let result = context.database.probe().await;
    // Also after an error such as a full disk, because a restart would not help.
    systemd::ping_watchdog();
    if let Err(WriterError::Stopped) = result {
        return result;
    }
    if let Some(before) = prune_before.filter(|_| result.is_ok()) {
        let watched = context.shared.watches().iter().map(|watch| watch.id.clone()).collect();
        if let Err(error) = context.database.delete_ended_before(before, watched).await {
            warn!(event = "retention_failed", %error, "cannot delete rows older than database.retention; the next attempt is in 24 h");
        }
    }
    Ok(())
}
