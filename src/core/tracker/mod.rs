//! The life of one watch: what an outcome adds to the record, and when to ask again.

use std::sync::Arc;
use std::time::Duration;

use super::backoff::{Backoff, BackoffPolicy};
use super::failure::{FailureReason, PollFailure, PollOutcome, RetryClass};
use super::job::{JobStatus, Snapshot, Sources};
use super::time::{Monotonic, Now, Timestamp};
use super::transition::{Anomaly, Change, Detail, DetailKind, SourceTransition, Transition};

/// The longest wait that the service can ask for. It protects against an absurd `Retry-After`.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(15);

/// How often to poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollPolicy {
    /// From a good answer to the next poll.
    pub interval: Duration,
    /// True if the user set the interval: a listing does not stretch it, but the quota may.
    pub fixed: bool,
    /// From a failed poll to the next one.
    pub backoff: BackoffPolicy,
}

/// The latest that is known of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its status.
    pub status: JobStatus,
    /// The service's remark on it.
    pub status_message: Option<String>,
    /// When the job was created.
    pub created_at: Option<Timestamp>,
    /// When the service says that it ended.
    pub completed_at: Option<Timestamp>,
    /// Its sources. Shared: all else changes at every poll, and they hardly ever do.
    pub sources: Arc<Sources>,
    /// When the status was first seen.
    pub since: Timestamp,
    /// When the status was last seen.
    pub last_seen: Timestamp,
    /// When the service has since said that it knows no such job.
    pub vanished_at: Option<Timestamp>,
}

impl Known {
    /// How long it is until `after` has passed since the job's end, which cannot have come later than it was seen, or since the
    /// service said that it no longer knows it; zero where that is over. `None`: it is there and goes on.
    #[must_use]
    pub fn forgotten_in(&self, after: Duration, now: Timestamp) -> Option<Duration> {
        let gone_at = if self.status.is_terminal() {
            self.completed_at.map_or(self.since, |said| said.min(self.since))
        } else {
            self.vanished_at?
        };
        let passed = Duration::try_from(now.duration_since(gone_at)).unwrap_or_default();
        Some(after.saturating_sub(passed))
    }
}

/// What follows from one outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to record before anything is shown.
    pub record: Change,
    /// When to ask again.
    pub next: Next,
}

/// When to ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// At this time.
    PollAt(Monotonic),
    /// Never: the job has ended.
    Finished(JobStatus),
    /// Not before the configuration changes, for this reason.
    Parked(String),
}

/// One watched job: the latest that is known of it and how its polls fare.
#[derive(Debug)]
pub struct JobWatch {
    policy: Arc<PollPolicy>,
    backoff: Backoff,
    jitter: fastrand::Rng,
    /// Shared with whoever publishes it.
    known: Option<Arc<Known>>,
    /// A job that had ended was seen to go on, once. One more answer has to confirm it.
    reopening: bool,
}

impl JobWatch {
    /// A watch that starts from what the record knows of the job. `seed` sets its jitter.
    #[must_use]
    pub fn new(policy: impl Into<Arc<PollPolicy>>, known: Option<Arc<Known>>, seed: u64) -> Self {
        let policy = policy.into();
        let (backoff, jitter) = (Backoff::new(policy.backoff), fastrand::Rng::with_seed(seed));
        Self { policy, backoff, jitter, known, reopening: false }
    }

    /// How often to poll.
    #[must_use]
    pub fn policy(&self) -> PollPolicy {
        *self.policy
    }

    /// The latest that is known of the job.
    #[must_use]
    pub fn known(&self) -> Option<&Known> {
        self.known.as_deref()
    }

    /// The same, to be kept.
    #[must_use]
    pub fn shared_known(&self) -> Option<Arc<Known>> {
        self.known.clone()
    }

    /// What to do first: nothing where the record says that the job has ended, else poll.
    #[must_use]
    pub fn first(&self, now: Now) -> Next {
        self.finished().unwrap_or(Next::PollAt(now.monotonic))
    }

    /// Takes in how a poll ended. The watch knows it from here on; whoever calls sees to it that it is recorded.
    pub fn handle_outcome(&mut self, outcome: PollOutcome, now: Now) -> Decision {
        match outcome {
            Ok(snapshot) => {
                self.backoff.reset();
                let record = self.learn(snapshot, now.wall);
                let next = self.finished().filter(|_| !self.reopening);
                let next = next.unwrap_or(Next::PollAt(now.monotonic + self.policy.interval));
                Decision { record, next }
            }
            Err(failure) => Decision { record: self.learn_failure(&failure, now.wall), next: self.retry(failure, now) },
        }
    }

    fn finished(&self) -> Option<Next> {
        let status = &self.known.as_ref()?.status;
        status.is_terminal().then(|| Next::Finished(status.clone()))
    }

    fn retry(&mut self, failure: PollFailure, now: Now) -> Next {
        // One that was never seen may be so new that not every part of the service knows it.
        let may_be_new = failure.reason == FailureReason::NotFound && self.known.is_none();
        let delay = match failure.reason.class().retry {
            RetryClass::Recheck if !may_be_new => self.policy.backoff.max,
            RetryClass::Backoff | RetryClass::Recheck => self.backoff.next_delay(self.jitter.f64()),
            RetryClass::Park => return Next::Parked(failure.message),
        };
        let asked = failure.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        Next::PollAt(now.monotonic + delay.max(asked))
    }

    fn learn_failure(&mut self, failure: &PollFailure, observed_at: Timestamp) -> Change {
        let mut change = Change::default();
        if let (FailureReason::NotFound, Some(known)) = (failure.reason, &mut self.known)
            && known.vanished_at.is_none()
        {
            Arc::make_mut(known).vanished_at = Some(observed_at);
            change.details.push(Detail { kind: DetailKind::Vanished, value: None, observed_at });
        }
        change
    }

    fn learn(&mut self, snapshot: Snapshot, observed_at: Timestamp) -> Change {
        let Some(known) = &mut self.known else {
            return self.first_sighting(snapshot, observed_at);
        };
        let known = Arc::make_mut(known);
        let mut change = Change::default();
        if known.vanished_at.take().is_some() {
            change.details.push(Detail { kind: DetailKind::Returned, value: None, observed_at });
        }
        let reopens = known.status.is_terminal() && !snapshot.status.is_terminal();
        if reopens && !self.reopening {
            self.reopening = true;
            return change;
        }
        self.reopening = false;
        change.sources = source_transitions(&known.sources, &snapshot.sources, observed_at);
        change.details.extend(details(known, &snapshot, observed_at));
        if known.status != snapshot.status {
            // A wall clock that was set back must not make the change end before it began.
            let not_before = Some(known.last_seen.min(observed_at));
            let anomaly = anomaly(Some(&known.status), &snapshot);
            change.transition =
                Some(transition(Some(known.status.clone()), &snapshot, observed_at, not_before, anomaly));
            known.since = observed_at;
        }
        known.last_seen = observed_at;
        known.created_at = snapshot.created_at.or(known.created_at);
        known.completed_at = snapshot.completed_at;
        known.status = snapshot.status;
        known.status_message = snapshot.status_message;
        if snapshot.sources.iter().any(|(key, source)| known.sources.get(key) != Some(source)) {
            Arc::make_mut(&mut known.sources).update(snapshot.sources);
        }
        change
    }

    fn first_sighting(&mut self, snapshot: Snapshot, observed_at: Timestamp) -> Change {
        let anomaly = anomaly(None, &snapshot);
        let change = Change {
            transition: Some(transition(None, &snapshot, observed_at, None, anomaly)),
            sources: source_transitions(&Sources::default(), &snapshot.sources, observed_at),
            details: Vec::new(),
        };
        let known = Known {
            status: snapshot.status,
            status_message: snapshot.status_message,
            created_at: snapshot.created_at,
            completed_at: snapshot.completed_at,
            sources: snapshot.sources.into(),
            since: observed_at,
            last_seen: observed_at,
            vanished_at: None,
        };
        self.known = Some(Arc::new(known));
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
    }
}

/// Sources that are new or have another status. One that is no longer named is no news: the last that is known of it stands.
fn source_transitions(known: &Sources, seen: &Sources, observed_at: Timestamp) -> Vec<SourceTransition> {
    seen.iter()
        .filter_map(|(key, source)| {
            let from = known.get(key).map(|known| known.status.clone());
            let changed = from.as_ref() != Some(&source.status);
            changed.then(|| SourceTransition { key: key.clone(), from, to: source.clone(), observed_at })
        })
        .collect()
}

fn details(known: &Known, snapshot: &Snapshot, observed_at: Timestamp) -> impl Iterator<Item = Detail> {
    let message = (known.status == snapshot.status && known.status_message != snapshot.status_message)
        .then(|| Detail { kind: DetailKind::StatusMessage, value: snapshot.status_message.clone(), observed_at });
    let recreated = match (known.created_at, snapshot.created_at) {
        (Some(before), Some(after)) if before != after => {
            let value = Some(after.to_string());
            Some(Detail { kind: DetailKind::CreationTimeChanged, value, observed_at })
        }
        _ => None,
    };
    message.into_iter().chain(recreated)
}

/// What the life cycle does not allow about the way from one status to the one in the snapshot.
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

/// How far along its life a job is; `None` for a status that the API page does not have.
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
