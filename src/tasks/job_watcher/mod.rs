//! The task of one job. It polls, commits the changes, and then publishes them: status, metrics and log.
//!
//! No change is published before its commit. While a commit fails, the task repeats it and does not poll.

mod poller;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{Level, event, info, warn};

use crate::config::watch_list::JobSettings;
use crate::core::failure::{FailureReason, RequestFailure};
use crate::core::job::{JobStatus, TargetJob};
use crate::core::limits::Limit;
use crate::core::time::{Monotonic, Now, Timestamp};
use crate::core::tracker::{Decision, NextAction};
use crate::core::transition::{Anomaly, Change, Detail, DetailKind, Transition, WatchInfo};
use crate::database::WriterError;
use crate::state::{FailedPoll, RECENT_FAILURES_MAX, TransitionEvent, WatchState, WatchStatus};
use crate::tasks::context::{TaskContext, WriterStopped};
pub(crate) use poller::Poller;

/// The pause between a failed commit and the next attempt.
const COMMIT_RETRY: Duration = Duration::from_secs(2);

/// A warning is logged at this many failed polls in a row. Fewer are usual.
const FAILURES_FOR_WARNING: u32 = 3;

/// The shortest retention of a discovered job that no poll has seen: its polls may be denied until a new IAM policy applies.
const UNSEEN_RETENTION_MIN: Duration = Duration::from_hours(1);

#[derive(Debug)]
pub(crate) struct JobWatcher {
    context: Arc<TaskContext>,
    poller: Poller,
    /// The current view. `publish_state` publishes the same `Arc`, so a later change copies the view first (`Arc::make_mut`).
    view: Arc<WatchStatus>,
    started: Monotonic,
    /// `remove_after` of a discovered job. `None`: the job has its own entry.
    retention: Option<Duration>,
    failures: FailureLog,
    /// The limits that were logged as exceeded. Each is logged once.
    logged_limits: BTreeSet<Limit>,
}

impl JobWatcher {
    /// Creates the task, publishes the job's view and reports to the registry.
    pub(crate) fn new(
        context: Arc<TaskContext>,
        poller: Poller,
        id: Arc<TargetJob>,
        JobSettings { name, labels, remove_after: retention, .. }: JobSettings,
    ) -> Self {
        let view = Arc::new(WatchStatus::new(id, name, labels, Arc::clone(poller.aws_region())));
        let (now, failures, logged_limits) = (context.clock.now(), FailureLog::default(), BTreeSet::new());
        let started = now.monotonic;
        let mut watcher = Self { context, poller, view, started, retention, failures, logged_limits };
        watcher.publish_state(now);
        watcher
    }

    /// Runs until `stop` is signalled, until a discovered job expires, or until a job with its own entry has ended or is parked. A commit
    /// attempt in progress ends first.
    pub(crate) async fn run(&mut self, stop: &mut oneshot::Receiver<()>) -> Result<(), WriterStopped> {
        loop {
            if self.poller.due().is_none() {
                // The job is finished or parked. Only a finished job waits for a hint that starts its polls again.
                tokio::select! {
                    biased;
                    _ = &mut *stop => return self.save_last_seen().await,
                    () = self.context.clock.sleep(self.time_until_exit()) => return self.save_last_seen().await,
                    () = self.poller.wait_for_reopening_hint() => {}
                }
            }
            let mut decision = tokio::select! {
                biased;
                _ = &mut *stop => return self.save_last_seen().await,
                polled = self.poller.poll() => {
                    let Some(decision) = polled else {
                        // The routine interval may have changed, so the view gets the new time of the next poll.
                        self.publish_state(self.context.clock.now());
                        continue;
                    };
                    decision
                }
            };
            if let Some(transition) = &mut decision.change.transition {
                transition.watch = Some(Arc::new(self.watch_info()));
            }
            if !self.commit(&decision.change, stop).await? {
                return Ok(());
            }
            // A vanished job may expire here only if this poll returned another 404, an unseen job only if it returned 404 or 403.
            let may_expire = decision.may_expire(self.poller.known().map(AsRef::as_ref));
            self.record_and_publish(decision);
            if may_expire && self.remaining_retention() == Some(Duration::ZERO) {
                return Ok(());
            }
        }
    }

    /// Saved with each transition.
    fn watch_info(&self) -> WatchInfo {
        let WatchStatus { name, labels, aws_region, .. } = &*self.view;
        WatchInfo { region: Arc::clone(aws_region), name: Arc::clone(name), labels: Arc::clone(labels) }
    }

    fn is_discovered(&self) -> bool {
        self.retention.is_some()
    }

    /// How long the task of a finished or parked job waits. `stop` ends the wait, and so does a hint if the job is finished. A job with its
    /// own entry does not wait; its view stays published. A discovered job waits until its retention has passed. If a discovered job is
    /// parked, was seen, and has neither ended nor vanished, only `stop` ends the wait.
    fn time_until_exit(&self) -> Duration {
        if self.is_discovered() { self.remaining_retention().unwrap_or(Duration::MAX) } else { Duration::ZERO }
    }

    /// The time until the retention of a discovered job has passed. `None`: the job has its own entry, or it was seen and has
    /// neither ended nor vanished.
    fn remaining_retention(&self) -> Option<Duration> {
        let (retention, now) = (self.retention?, self.context.clock.now());
        match self.poller.known() {
            Some(known) => known.remaining_retention(retention, now.wall),
            None => Some(retention.max(UNSEEN_RETENTION_MIN).saturating_sub(now.monotonic.since(self.started))),
        }
    }

    /// Saves when the status was last seen, which is the lower bound for the time of the next transition. A failed commit is not
    /// repeated: an older bound is less exact, but correct.
    async fn save_last_seen(&self) -> Result<(), WriterStopped> {
        let known = self.poller.known().filter(|known| !known.status.is_terminal() && known.vanished_at.is_none());
        // Without a successful poll in this task, `last_seen` comes from the database, so it is saved already.
        let (Some(_), Some(known)) = (self.view.last_successful_poll, known) else {
            return Ok(());
        };
        let detail = Detail { kind: DetailKind::StillSeen, value: None, observed_at: known.last_seen };
        let change = Change { details: vec![detail], ..Change::default() };
        self.try_commit(&change).await?;
        Ok(())
    }

    /// Commits, with retries. Returns false if `stop` was signalled before a commit succeeded.
    async fn commit(&self, change: &Change, stop: &mut oneshot::Receiver<()>) -> Result<bool, WriterStopped> {
        while !change.is_empty() && !self.try_commit(change).await? {
            tokio::select! {
                biased;
                _ = &mut *stop => return Ok(false),
                () = self.context.clock.sleep(COMMIT_RETRY) => {}
            }
        }
        Ok(true)
    }

    async fn try_commit(&self, change: &Change) -> Result<bool, WriterStopped> {
        let committed = self.context.database.append(&self.view.id, change).await;
        if let Err(WriterError::Stopped) = committed {
            return Err(WriterStopped);
        }
        Ok(committed.is_ok())
    }

    /// Updates and publishes the view, metrics and log after the commit of `decision`.
    fn record_and_publish(&mut self, decision: Decision) {
        let Decision { at, failure, change, exceeded_limits, next: _ } = decision;
        for limit in exceeded_limits {
            self.on_limit(limit);
        }
        match failure {
            None => {
                if !std::mem::take(&mut self.failures).logged_reasons.is_empty() {
                    info!(event = "poll_recovered", watch = &*self.view.name, target = %self.view.id.target,
                        kind = %self.view.id.key.kind, store_id = %self.view.id.key.store, job_id = %self.view.id.key.job,
                        "polls succeed again");
                }
                let view = Arc::make_mut(&mut self.view);
                (view.up, view.last_successful_poll) = (Some(true), Some(at.wall));
            }
            Some(failure) => self.record_failure(failure, at.wall),
        }
        if let Some(transition) = &change.transition {
            self.context.instruments.count_transition(&self.view.id.target, self.view.id.key.kind, &transition.to);
        }
        // `view.known` is still the state before this poll.
        let ended_before = self.view.known.as_ref().is_some_and(|known| known.ended_once);
        // The view is published before the transition, because the subscribers of transitions read the view.
        self.publish_state(at);
        if let Some(transition) = change.transition {
            if transition.to.is_terminal() {
                self.measure_end(&transition, ended_before);
            }
            self.publish_transition(transition);
        }
    }

    /// Counts an exceeded limit, and logs it once.
    fn on_limit(&mut self, limit: Limit) {
        self.context.instruments.count_exceeded(limit);
        if self.logged_limits.insert(limit) {
            let WatchStatus { id, name, .. } = &*self.view;
            warn!(event = "limit_exceeded", watch = &**name, target = %id.target, kind = %id.key.kind,
                store_id = %id.key.store, job_id = %id.key.job, limit = limit.label(),
                "the service returned more than {} {}; the rest is ignored", limit.max(), limit.text());
        }
    }

    /// Adds the failure to the view, and logs it if `FailureLog` says so.
    fn record_failure(&mut self, RequestFailure { reason, message, .. }: RequestFailure, at: Timestamp) {
        let is_parked = matches!(self.poller.next_action(), NextAction::Parked(_));
        let should_log = self.failures.should_log(reason, is_parked || reason.info().needs_operator);
        let WatchStatus { id, name, up, recent_failures, .. } = Arc::make_mut(&mut self.view);
        if should_log {
            warn!(event = "poll_failed", watch = &**name, target = %id.target, kind = %id.key.kind,
                store_id = %id.key.store, job_id = %id.key.job, reason = reason.label(), "{message}");
        }
        *up = Some(false);
        if recent_failures.len() == RECENT_FAILURES_MAX {
            recent_failures.pop_front();
        }
        recent_failures.push_back(FailedPoll { at, reason, message });
    }

    /// Copies the known state and the next action to the view, publishes the view, and reports both to the registry.
    fn publish_state(&mut self, now: Now) {
        let view = Arc::make_mut(&mut self.view);
        view.known = self.poller.known().cloned();
        view.next_poll = self.poller.due().and_then(|due| wall_time_of(due, now));
        view.state = match self.poller.next_action() {
            NextAction::PollAt(_) => WatchState::Live,
            NextAction::Finished(_) => WatchState::Finished,
            NextAction::Parked(reason) => WatchState::Parked(reason.clone()),
        };
        self.poller.report_to_registry();
        self.context.shared.publish(Arc::clone(&self.view));
    }

    /// Adds the detection delay and the duration of an ended job to their histograms. Negative times are not added.
    fn measure_end(&self, transition: &Transition, ended_before: bool) {
        let (instruments, Some(completed_at)) = (&self.context.instruments, transition.completed_at) else {
            return;
        };
        // A first observation has no detection delay: the job may have ended long before.
        if transition.from.is_some()
            && let Ok(delay) = Duration::try_from(self.context.clock.now().wall.duration_since(completed_at))
        {
            instruments.detection_delay.observe(delay.as_secs_f64());
        }
        // Both times are from AWS, so the duration is known even if the first observation shows the end. Only the first end
        // of a job is added. The database shows whether a job has ended before (`ended_once`), also after a restart.
        let created_at = self.view.known.as_ref().and_then(|known| known.created_at);
        if !ended_before
            && let Some(created_at) = created_at
            && let Ok(duration) = Duration::try_from(completed_at.duration_since(created_at))
        {
            instruments.observe_job_duration(self.view.id.key.kind, &transition.to, duration);
        }
    }

    fn publish_transition(&self, transition: Transition) {
        let WatchStatus { name, id, labels, aws_region, .. } = &*self.view;
        let TargetJob { target, key } = &**id;
        let Transition {
            from,
            to,
            observed_at,
            not_before,
            status_message,
            created_at,
            completed_at,
            anomaly,
            watch: _,
        } = &transition;
        // Discovered jobs share the name of their `[[store]]` entry.
        let title = if self.is_discovered() { format!("{name}/{}", key.job) } else { name.to_string() };
        // `event!` needs a constant level, so the macro writes the fields once for both levels.
        macro_rules! log {
            ($level:expr) => {
                event!(
            $level,
            event = "transition",
            watch = &**name,
            target = %target,
            kind = %key.kind,
            store_id = %key.store,
            job_id = %key.job,
            from_status = from.as_ref().map(tracing::field::display),
            to_status = %to,
            observed_at = format_args!("{observed_at:.3}"),
            not_before = not_before.map(|time| tracing::field::display(format!("{time:.3}"))),
            status_message = status_message.as_deref(),
            created_at = created_at.map(tracing::field::display),
            completed_at = completed_at.map(tracing::field::display),
            anomaly = anomaly.map(Anomaly::as_str),
            region = &**aws_region,
            labels = (!labels.is_empty()).then(|| tracing::field::debug(labels)),
            "{title}: {}{to}", from.as_ref().map(|from| format!("{from} → ")).unwrap_or_default(),
        )
            };
        }
        if to.is_terminal() && *to != JobStatus::Completed {
            log!(Level::WARN);
        } else {
            log!(Level::INFO);
        }
        self.context.shared.broadcast(TransitionEvent { name: Arc::clone(name), id: Arc::clone(id), transition });
    }
}

/// Which failed polls of a job are logged: each reason once until a poll succeeds.
#[derive(Debug, Default)]
struct FailureLog {
    /// Failed polls since the last success.
    in_a_row: u32,
    logged_reasons: BTreeSet<FailureReason>,
}

impl FailureLog {
    /// Counts a failure, and returns whether it is logged: `at_once`, or from the [`FAILURES_FOR_WARNING`]th failed poll in a row. A
    /// reason is logged once.
    fn should_log(&mut self, reason: FailureReason, at_once: bool) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(1);
        (at_once || self.in_a_row >= FAILURES_FOR_WARNING) && self.logged_reasons.insert(reason)
    }
}

/// The expected wall clock time of `at`.
fn wall_time_of(at: Monotonic, now: Now) -> Option<Timestamp> {
    now.wall.checked_add(at.since(now.monotonic)).ok()
}

#[cfg(test)]
mod tests;
