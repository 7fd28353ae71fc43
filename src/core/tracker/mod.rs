//! The state machine of one watched job.
//!
//! [`JobTracker`] takes the outcome of a poll and the time, and returns a [`Decision`]: what to save and when to poll next. It
//! keeps the latest known state of the job. It never sends, saves or publishes anything, so its tests are scripts of outcomes.

use std::sync::Arc;
use std::time::Duration;

use super::backoff::{Backoff, BackoffPolicy};
use super::failure::{FailureReason, PollResult, RequestFailure, RetryClass};
use super::items::{item_transitions, match_items};
use super::job::{Items, JobStatus, Snapshot};
use super::limits::Limit;
use super::time::{Monotonic, Now, Timestamp};
use super::transition::{Anomaly, Change, Detail, DetailKind, Transition};

/// The longest `Retry-After` that is honoured.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollPolicy {
    /// From a successful poll to the next one. Listings and the quota may stretch it.
    pub interval: Duration,
    /// Whether the user set the interval. If so, listings do not stretch it.
    pub is_interval_set: bool,
    /// From a failed poll to the next one.
    pub backoff: BackoffPolicy,
}

/// The latest known state of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobState {
    pub status: JobStatus,
    pub status_message: Option<String>,
    pub created_at: Option<Timestamp>,
    /// The service's `completionTime`.
    pub completed_at: Option<Timestamp>,
    /// In an `Arc`, because a job may have thousands of items, and each successful poll copies the state.
    pub items: Arc<Items>,
    /// The number of saved transitions: see `Limit::Transitions`.
    pub transition_count: usize,
    /// The number of saved changes that count towards `Limit::Changes`: those of items, messages and creation times, and returns.
    pub changes_towards_limit: usize,
    /// The `observed_at` of the transition to this status.
    pub since: Timestamp,
    /// When the status was last observed.
    pub last_seen: Timestamp,
    /// When the service first returned 404 for the job. `None` once it returns the job again.
    pub vanished_at: Option<Timestamp>,
    /// True from the first terminal status on, also after the job was reopened.
    pub ended_once: bool,
}

impl JobState {
    /// The time until `retention` has passed since the job ended or vanished, or zero. `None` if the job did neither. A
    /// `completionTime` later than the observed end is ignored.
    #[must_use]
    pub fn remaining_retention(&self, retention: Duration, now: Timestamp) -> Option<Duration> {
        let gone_at = if self.status.is_terminal() {
            self.completed_at.map_or(self.since, |completed| completed.min(self.since))
        } else {
            self.vanished_at?
        };
        let passed = Duration::try_from(now.duration_since(gone_at)).unwrap_or_default();
        Some(retention.saturating_sub(passed))
    }
}

/// Everything that follows from the outcome of one poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When the poll ended.
    pub at: Now,
    pub failure: Option<RequestFailure>,
    /// It must be committed before anything is published.
    pub change: Change,
    pub next: NextAction,
    /// The limits that the response exceeded.
    pub exceeded_limits: Vec<Limit>,
}

impl Decision {
    /// True if a discovered job may expire after this poll, once its retention has passed. `state` is the state after this poll.
    /// Never seen: at a 404 or 403. Vanished: only at a later 404. Otherwise: always. If a job expires wrongly, no listing may
    /// bring it back.
    #[must_use]
    pub fn may_expire(&self, state: Option<&JobState>) -> bool {
        let reason = self.failure.as_ref().map(|failure| failure.reason);
        let not_found = reason == Some(FailureReason::NotFound);
        match state {
            None => not_found || reason == Some(FailureReason::AccessDenied),
            Some(state) if state.vanished_at.is_some() => {
                not_found && !self.change.details.iter().any(|detail| detail.kind == DetailKind::Vanished)
            }
            Some(_) => true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextAction {
    PollAt(Monotonic),
    /// The job has ended with this status. It is polled again only after a hint.
    Finished(JobStatus),
    /// The job is not polled before the configuration changes, for this reason.
    Parked(String),
}

#[derive(Debug)]
pub struct JobTracker {
    policy: PollPolicy,
    backoff: Backoff,
    jitter: fastrand::Rng,
    state: Option<Arc<JobState>>,
    /// True if one response showed that an ended job is live again. The next snapshot must confirm it.
    reopening: bool,
}

impl JobTracker {
    /// Starts from the state that the database holds. `seed` sets the jitter of the backoff.
    #[must_use]
    pub fn new(policy: PollPolicy, state: Option<Arc<JobState>>, seed: u64) -> Self {
        let (backoff, jitter) = (Backoff::new(policy.backoff), fastrand::Rng::with_seed(seed));
        Self { policy, backoff, jitter, state, reopening: false }
    }

    #[must_use]
    pub fn policy(&self) -> PollPolicy {
        self.policy
    }

    /// The latest known state; `None` before the first successful poll.
    #[must_use]
    pub fn state(&self) -> Option<&Arc<JobState>> {
        self.state.as_ref()
    }

    /// The action before the first outcome.
    #[must_use]
    pub fn initial_action(&self, now: Now) -> NextAction {
        self.finished().unwrap_or(NextAction::PollAt(now.monotonic))
    }

    /// Handles the outcome of a poll. The caller commits the change.
    pub fn handle(&mut self, outcome: PollResult, at: Now) -> Decision {
        match outcome {
            Ok(mut snapshot) => {
                self.backoff.reset();
                let mut exceeded_limits = std::mem::take(&mut snapshot.exceeded_limits);
                let change = self.apply_snapshot(snapshot, at.wall, &mut exceeded_limits);
                let next = self.finished().filter(|_| !self.reopening);
                let next = next.unwrap_or(NextAction::PollAt(at.monotonic + self.policy.interval));
                Decision { at, failure: None, change, next, exceeded_limits }
            }
            Err(failure) => {
                let change = self.apply_failure(&failure, at.wall);
                let next = self.retry(&failure, at);
                Decision { at, failure: Some(failure), change, next, exceeded_limits: Vec::new() }
            }
        }
    }

    fn finished(&self) -> Option<NextAction> {
        let status = &self.state.as_ref()?.status;
        status.is_terminal().then(|| NextAction::Finished(status.clone()))
    }

    fn retry(&mut self, failure: &RequestFailure, now: Now) -> NextAction {
        // A job that was never seen may be new: HealthOmics may not find it everywhere yet.
        let may_be_new = failure.reason == FailureReason::NotFound && self.state.is_none();
        let delay = match failure.reason.info().retry {
            RetryClass::Recheck if !may_be_new => self.policy.backoff.max,
            RetryClass::Backoff | RetryClass::Recheck => self.backoff.next_delay(self.jitter.f64()),
            RetryClass::Park => return NextAction::Parked(failure.message.clone()),
        };
        let retry_after = failure.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        NextAction::PollAt(now.monotonic + delay.max(retry_after))
    }

    fn apply_failure(&mut self, failure: &RequestFailure, observed_at: Timestamp) -> Change {
        let mut change = Change::default();
        if let (FailureReason::NotFound, Some(state)) = (failure.reason, &mut self.state)
            && state.vanished_at.is_none()
        {
            Arc::make_mut(state).vanished_at = Some(observed_at);
            change.details.push(Detail { kind: DetailKind::Vanished, value: None, observed_at });
        }
        change
    }

    fn apply_snapshot(
        &mut self,
        mut snapshot: Snapshot,
        observed_at: Timestamp,
        exceeded_limits: &mut Vec<Limit>,
    ) -> Change {
        let Some(state) = &mut self.state else {
            return self.first_observation(snapshot, observed_at);
        };
        let state = Arc::make_mut(state);
        let mut change = Change::default();
        if state.vanished_at.is_some() {
            if state.changes_towards_limit < Limit::Changes.max() {
                state.vanished_at = None;
                state.changes_towards_limit += 1;
                change.details.push(Detail { kind: DetailKind::Returned, value: None, observed_at });
            } else {
                exceeded_limits.push(Limit::Changes);
            }
        }
        let reopens = state.status.is_terminal() && !snapshot.status.is_terminal();
        if reopens && !self.reopening {
            self.reopening = true;
            return change;
        }
        self.reopening = false;
        let ends = snapshot.status.is_terminal() && !state.status.is_terminal();
        if state.status != snapshot.status && state.transition_count >= Limit::Transitions.max() && !ends {
            // Past the limit a live job can still end. Nothing follows that end.
            exceeded_limits.push(Limit::Transitions);
            return change;
        }
        let seen = std::mem::take(&mut snapshot.items);
        // A response without items keeps the known ones.
        let items = if seen.is_empty() || seen == *state.items {
            Arc::clone(&state.items)
        } else {
            match_items(&state.items, seen).into()
        };
        let changed_items = item_transitions(&state.items, &items, observed_at);
        let changed_details: Vec<_> = details(state, &snapshot, observed_at).collect();
        let changes = state.changes_towards_limit + changed_items.len() + changed_details.len();
        if changes <= Limit::Changes.max() {
            state.changes_towards_limit = changes;
            state.items = items;
            change.items = changed_items;
            change.details.extend(changed_details);
        } else {
            // An unsaved change is not shown either.
            exceeded_limits.push(Limit::Changes);
            snapshot.created_at = state.created_at;
            if state.status == snapshot.status {
                snapshot.status_message.clone_from(&state.status_message);
            }
        }
        if state.status != snapshot.status {
            // The wall clock may have been set back: the change must not end before it began.
            let not_before = Some(state.last_seen.min(observed_at));
            let anomaly = anomaly(Some(&state.status), &snapshot);
            change.transition =
                Some(transition(Some(state.status.clone()), &snapshot, observed_at, not_before, anomaly));
            state.transition_count += 1;
            // A transition shows a return that was over the limit.
            state.vanished_at = None;
            state.since = observed_at;
        }
        state.ended_once |= snapshot.status.is_terminal();
        state.last_seen = observed_at;
        state.created_at = snapshot.created_at.or(state.created_at);
        state.completed_at = snapshot.completed_at;
        state.status = snapshot.status;
        state.status_message = snapshot.status_message;
        change
    }

    fn first_observation(&mut self, mut snapshot: Snapshot, observed_at: Timestamp) -> Change {
        let anomaly = anomaly(None, &snapshot);
        let items = match_items(&Items::default(), std::mem::take(&mut snapshot.items));
        let change = Change {
            transition: Some(transition(None, &snapshot, observed_at, None, anomaly)),
            items: item_transitions(&Items::default(), &items, observed_at),
            details: Vec::new(),
        };
        let state = JobState {
            ended_once: snapshot.status.is_terminal(),
            status: snapshot.status,
            status_message: snapshot.status_message,
            created_at: snapshot.created_at,
            completed_at: snapshot.completed_at,
            transition_count: 1,
            changes_towards_limit: change.items.len(),
            items: items.into(),
            since: observed_at,
            last_seen: observed_at,
            vanished_at: None,
        };
        self.state = Some(Arc::new(state));
        change
    }
}

fn transition(
    from: Option<JobStatus>,
    snapshot: &Snapshot,
    observed_at: Timestamp,
    not_before: Option<Timestamp>,
    anomaly: Option<Anomaly>,
) -> Transition {
    Transition {
        from,
        to: snapshot.status.clone(),
        observed_at,
        not_before,
        status_message: snapshot.status_message.clone(),
        created_at: snapshot.created_at,
        completed_at: snapshot.completed_at,
        anomaly,
        watch: None,
    }
}

fn details(state: &JobState, snapshot: &Snapshot, observed_at: Timestamp) -> impl Iterator<Item = Detail> {
    let message = (state.status == snapshot.status && state.status_message != snapshot.status_message)
        .then(|| Detail { kind: DetailKind::StatusMessage, value: snapshot.status_message.clone(), observed_at });
    let recreated = match (state.created_at, snapshot.created_at) {
        (Some(before), Some(after)) if before != after => {
            let value = Some(after.to_string());
            Some(Detail { kind: DetailKind::CreationTimeChanged, value, observed_at })
        }
        _ => None,
    };
    message.into_iter().chain(recreated)
}

/// The rule of the life cycle that a change of status breaks. If it breaks two rules, the first match is returned.
fn anomaly(from: Option<&JobStatus>, snapshot: &Snapshot) -> Option<Anomaly> {
    let to = &snapshot.status;
    match from {
        Some(from) if from.is_terminal() && to.is_terminal() => Some(Anomaly::EndChanged),
        Some(from) if from.is_terminal() => Some(Anomaly::Reopened),
        Some(from) if stage(from).zip(stage(to)).is_some_and(|(before, after)| after < before) => {
            Some(Anomaly::Regressed)
        }
        Some(_) | None => (to.is_terminal() && snapshot.completed_at.is_none()).then_some(Anomaly::NoCompletionTime),
    }
}

/// The place of a status in the life cycle; `None` for a status that the API page does not list.
fn stage(status: &JobStatus) -> Option<u8> {
    match status {
        JobStatus::Submitted => Some(0),
        JobStatus::InProgress => Some(1),
        JobStatus::Cancelling => Some(2),
        JobStatus::Cancelled | JobStatus::Failed | JobStatus::Completed | JobStatus::CompletedWithFailures => Some(3),
        JobStatus::Unknown(_) => None,
    }
}

#[cfg(test)]
mod tests;
