//! The task of one job. It polls, commits what changed, and then publishes it: status, metrics and log.
//!
//! Nothing is published before its commit. While the database cannot be written the task does not poll, so nothing is observed
//! that could not be saved.

mod poller;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::core::failure::PollFailure;
use crate::core::job::{KIND, WatchId};
use crate::core::time::{Monotonic, Now, Timestamp};
use crate::core::tracker::{Decision, NextAction};
use crate::core::transition::{Anomaly, Change, Detail, DetailKind, Transition};
use crate::database::{Database, WriterError};
use crate::instruments::Instruments;
use crate::state::{FailedPoll, RECENT_FAILURES_MAX, SharedState, TransitionEvent, WatchState, WatchStatus};
pub(crate) use poller::Poller;

/// From a failed commit to the next attempt.
const COMMIT_RETRY: Duration = Duration::from_secs(2);

/// The shortest time that a discovered job is polled before it was ever seen. A new IAM policy takes a while to apply.
const UNSEEN_MIN: Duration = Duration::from_hours(1);

/// What every task works with.
#[derive(Clone, Debug)]
pub struct TaskContext {
    pub clock: Clock,
    pub database: Database,
    pub board: SharedState,
    pub instruments: Instruments,
}

/// The database writer has ended. The process has to end, and systemd starts it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the thread that writes the database has ended")]
pub struct WriterStopped;

#[derive(Debug)]
pub(crate) struct JobWatcher {
    context: Arc<TaskContext>,
    poller: Poller,
    view: WatchStatus,
    started: Monotonic,
    /// How long a discovered job is retained after its end; `None`: the job has an entry of its own.
    remove_after: Option<Duration>,
}

impl JobWatcher {
    /// Publishes the watch.
    pub(crate) fn new(
        context: Arc<TaskContext>,
        poller: Poller,
        id: Arc<WatchId>,
        name: Arc<str>,
        remove_after: Option<Duration>,
    ) -> Self {
        let view = WatchStatus::new(id, name, Arc::clone(poller.aws_region()));
        let now = context.clock.now();
        let mut watcher = Self { context, poller, view, started: now.monotonic, remove_after };
        watcher.publish(now);
        watcher
    }

    /// Runs until the job has ended and its retention has expired, or until `stop` is signalled. A commit in progress ends first.
    ///
    /// # Errors
    /// The database writer has ended.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) -> Result<(), WriterStopped> {
        loop {
            if self.poller.due().is_none() {
                let retained = self.retained_without_polls();
                tokio::select! {
                    biased;
                    _ = &mut stop => return Ok(()),
                    () = self.context.clock.sleep(retained) => return Ok(()),
                    () = self.poller.wait_reopened() => {}
                }
            }
            let decision = tokio::select! {
                biased;
                _ = &mut stop => return self.save_last_seen().await,
                decision = self.poller.poll() => decision,
            };
            let Some(decision) = decision else {
                self.publish(self.context.clock.now());
                continue;
            };
            if !self.commit(&decision.change, &mut stop).await? {
                return Ok(());
            }
            let can_be_dropped = decision.can_be_dropped(self.poller.known().map(AsRef::as_ref));
            self.show(decision);
            if can_be_dropped && self.remaining_retention() == Some(Duration::ZERO) {
                return Ok(());
            }
        }
    }

    /// How long the task of a job that is not polled goes on. A parked job is retained until the configuration changes.
    fn retained_without_polls(&self) -> Duration {
        let discovered = self.remove_after.map(|_| self.remaining_retention().unwrap_or(Duration::MAX));
        discovered.unwrap_or_default()
    }

    /// `None`: the job is live, or it has an entry of its own.
    fn remaining_retention(&self) -> Option<Duration> {
        let (after, now) = (self.remove_after?, self.context.clock.now());
        match self.poller.known() {
            Some(known) => known.remaining_retention(after, now.wall),
            None => Some(after.max(UNSEEN_MIN).saturating_sub(now.monotonic.since(self.started))),
        }
    }

    /// Saves when the status was last observed, which bounds the time of the next transition. It is tried once: without it the
    /// bounds are wider and still correct.
    async fn save_last_seen(&self) -> Result<(), WriterStopped> {
        let polled = self.view.last_successful_poll.and(self.poller.known());
        let Some(known) = polled.filter(|known| !known.status.is_terminal() && known.vanished_at.is_none()) else {
            return Ok(());
        };
        let detail = Detail { kind: DetailKind::StillSeen, value: None, observed_at: known.last_seen };
        self.try_commit(&Change { details: vec![detail], ..Change::default() }).await?;
        Ok(())
    }

    /// Commits, with retries. Returns whether `change` is saved; if not, `stop` was signalled.
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

    /// Publishes a committed decision.
    fn show(&mut self, decision: Decision) {
        let Decision { at, failure, change, .. } = decision;
        match failure {
            None => {
                if self.view.up == Some(false) {
                    info!(event = "poll_recovered", watch = &*self.view.name, target = %self.view.id.target,
                        store_id = %self.view.id.key.store, job_id = %self.view.id.key.job,
                        "polls succeed again");
                }
                self.view.up = Some(true);
                self.view.last_successful_poll = Some(at.wall);
            }
            Some(failure) => self.show_failure(failure, at.wall),
        }
        if let Some(transition) = &change.transition {
            self.context.instruments.count_transition(&self.view.id.target, &transition.to);
        }
        // Subscribers of transitions expect to find the new status.
        self.publish(at);
        if let Some(transition) = change.transition {
            self.announce(transition);
        }
    }

    /// Logs a failure if it is the first, or of another class than the one before.
    fn show_failure(&mut self, PollFailure { reason, message, .. }: PollFailure, at: Timestamp) {
        let WatchStatus { id, name, up, recent_failures, .. } = &mut self.view;
        if *up != Some(false) || recent_failures.back().is_none_or(|last| last.reason != reason) {
            warn!(event = "poll_failed", watch = &**name, target = %id.target, store_id = %id.key.store,
                job_id = %id.key.job, reason = reason.label(), "{message}");
        }
        *up = Some(false);
        if recent_failures.len() == RECENT_FAILURES_MAX {
            recent_failures.pop_front();
        }
        recent_failures.push_back(FailedPoll { at, reason, message });
    }

    fn publish(&mut self, now: Now) {
        self.view.known = self.poller.known().cloned();
        self.view.next_poll = self.poller.due().and_then(|due| wall(due, now));
        self.view.state = match self.poller.next() {
            NextAction::PollAt(_) => WatchState::Live,
            NextAction::Finished(_) => WatchState::Finished,
            NextAction::Parked(reason) => WatchState::Parked(reason.clone()),
        };
        self.poller.report();
        self.context.board.publish(self.view.clone());
    }

    fn announce(&self, transition: Transition) {
        let WatchStatus { name, id, .. } = &self.view;
        let WatchId { target, key } = &**id;
        let Transition { from, to, observed_at, not_before, status_message, created_at, completed_at, anomaly } =
            &transition;
        // Discovered jobs share the name of their store.
        let title = if self.remove_after.is_some() { format!("{name}/{}", key.job) } else { name.to_string() };
        info!(
            event = "transition",
            watch = &**name,
            target = %target,
            kind = KIND,
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
            "{title}: {}{to}", from.as_ref().map(|from| format!("{from} → ")).unwrap_or_default(),
        );
        // A job may have ended long before its first poll.
        if let (Some(_), true, Some(completed_at)) = (from, to.is_terminal(), completed_at)
            && let Ok(delay) = Duration::try_from(self.context.clock.now().wall.duration_since(*completed_at))
        {
            self.context.instruments.detection_delay.observe(delay.as_secs_f64());
        }
        self.context.board.broadcast(TransitionEvent { name: Arc::clone(name), id: Arc::clone(id), transition });
    }
}

/// The expected wall clock time of a time on the monotonic clock.
fn wall(at: Monotonic, now: Now) -> Option<Timestamp> {
    now.wall.checked_add(at.since(now.monotonic)).ok()
}
