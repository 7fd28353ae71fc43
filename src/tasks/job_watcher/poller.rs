//! Asking for one job when it is due: steps 1 to 5 of the way of an answer.

use std::sync::Arc;

use crate::core::failure::{FailureReason, PollFailure, Scope};
use crate::core::job::WatchId;
use crate::core::listing::is_swept;
use crate::core::time::{Monotonic, Now};
use crate::core::tracker::{JobWatch, Known, Next, PollPolicy};
use crate::core::transition::{Change, DetailKind};
use crate::healthomics::{Priority, RequestPermit, Target};
use crate::tasks::hints::{JobHints, Told};

/// Asks for one job. It neither records nor shows anything.
#[derive(Debug)]
pub struct Poller {
    target: Arc<Target>,
    id: Arc<WatchId>,
    watch: JobWatch,
    next: Next,
    hints: JobHints,
    /// When the last poll succeeded; `None` before the first one.
    fresh_at: Option<Monotonic>,
    failing: Option<Failing>,
}

/// The last poll failed.
#[derive(Clone, Copy, Debug)]
struct Failing {
    sent: Monotonic,
    /// Whether it waits for the target, and not for itself alone.
    with_the_target: bool,
}

/// One poll, done.
#[derive(Debug)]
pub struct Polled {
    /// When its outcome was taken in.
    pub now: Now,
    /// Why it failed, if it did.
    pub failure: Option<PollFailure>,
    /// What it adds to the record.
    pub change: Change,
}

impl Polled {
    /// Whether a job of which by now this is `known` may be given up once its time in sight is over. No listing may bring it back: so one
    /// that was seen is not for one answer that it is gone, nor one that was never seen for anything but the service's no.
    #[must_use]
    pub fn lets_go(&self, known: Option<&Known>) -> bool {
        let reason = self.failure.as_ref().map(|failure| failure.reason);
        let gone = reason == Some(FailureReason::NotFound);
        match known {
            None => gone || reason == Some(FailureReason::AccessDenied),
            Some(known) if known.vanished_at.is_some() => {
                gone && !self.change.details.iter().any(|detail| detail.kind == DetailKind::Vanished)
            }
            Some(_) => true,
        }
    }
}

impl Poller {
    /// A poller that starts from what is known of the job. `seed` sets its jitter.
    #[must_use]
    pub fn new(
        target: Arc<Target>,
        id: Arc<WatchId>,
        policy: impl Into<Arc<PollPolicy>>,
        known: Option<Arc<Known>>,
        hints: JobHints,
        seed: u64,
    ) -> Self {
        let watch = JobWatch::new(policy, known, seed);
        let next = watch.first(target.clock().now());
        Self { target, id, watch, next, hints, fresh_at: None, failing: None }
    }

    /// The region that its polls go to.
    #[must_use]
    pub fn aws_region(&self) -> &Arc<str> {
        self.target.aws_region()
    }

    /// The latest that is known of the job.
    #[must_use]
    pub fn known(&self) -> Option<&Known> {
        self.watch.known()
    }

    /// The same, to be kept.
    #[must_use]
    pub fn shared_known(&self) -> Option<Arc<Known>> {
        self.watch.shared_known()
    }

    /// What comes next.
    #[must_use]
    pub fn next(&self) -> &Next {
        &self.next
    }

    /// When the next poll is due; `None` where there is none to come. While its store is swept, a job without a hint is polled
    /// only now and then.
    #[must_use]
    pub fn due(&self) -> Option<Monotonic> {
        let Next::PollAt(due) = self.next else { return None };
        let swept = is_swept(self.watch.known(), self.target.clock().now().wall);
        let stretches = swept && self.failing.is_none() && !self.watch.policy().fixed;
        let safety = self.hints.safety_interval().zip(self.fresh_at).filter(|_| stretches);
        Some(safety.map_or(due, |(interval, fresh_at)| due.max(fresh_at + interval)))
    }

    /// Returns after the next poll, or with `None` when that has another time, at once where there is none to come. A caller that
    /// stops waiting loses nothing: between the answer's arrival and the return there is no wait. What lasts for a moment, and what it
    /// comes back with, is boxed: whoever waits for it, for most of its life, would have room for it.
    pub async fn poll(&mut self) -> Option<Box<Polled>> {
        let due = self.due()?;
        let permit = self.wait_for_permit(due).await?;
        let sent = self.target.clock().now().monotonic;
        let outcome = self.target.poll(&self.id.key).await;
        drop(permit);
        let now = self.target.clock().now();
        let failure = outcome.as_ref().err().cloned();
        self.failing = failure.as_ref().map(|failure| {
            // A wait that the service asked for is not cut short.
            let with_the_target = failure.reason.class().scope != Scope::Job && failure.retry_after.is_none();
            Failing { sent, with_the_target }
        });
        if failure.is_none() {
            self.fresh_at = Some(now.monotonic);
        }
        let decision = self.watch.handle_outcome(outcome, now);
        self.next = decision.next;
        Some(Box::new(Polled { now, failure, change: decision.record }))
    }

    /// Returns once a job that has ended is due again, because a listing shows it otherwise.
    pub async fn asked_again(&mut self) {
        if !matches!(self.next, Next::Finished(_)) {
            std::future::pending::<()>().await;
        }
        self.hints.looks_changed().await;
        self.next = Next::PollAt(self.target.clock().now().monotonic);
    }

    /// Waits until the job may be polled. Returns `None` if it is due at another time now. A hint gives it priority unless the job
    /// is backing off. A backoff ends early when the circuit breaker closes.
    async fn wait_for_permit(&mut self, due: Monotonic) -> Option<RequestPermit> {
        if let Some(Failing { sent, with_the_target }) = self.failing {
            tokio::select! {
                biased;
                () = self.target.recovered_after(&self.id.key.store, sent), if with_the_target => {}
                () = self.target.clock().sleep_until(due) => {}
            }
            return Some(self.target.poll_permit(&self.id.key.store, Priority::Routine).await);
        }
        let told = tokio::select! {
            biased;
            told = self.hints.told() => Some(told),
            () = self.target.clock().sleep_until(due) => None,
        };
        if told == Some(Told::SafetyInterval) {
            return None;
        }
        if told.is_none() {
            // A job that is due stays in the queue: it would lose its place whenever the safety interval changes.
            tokio::select! {
                biased;
                () = self.hints.looks_changed() => {}
                permit = self.target.poll_permit(&self.id.key.store, Priority::Routine) => return Some(permit),
            }
        }
        Some(self.target.poll_permit(&self.id.key.store, Priority::Hinted).await)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::job::JobStatus;
    use crate::core::time::Timestamp;
    use crate::core::transition::Detail;

    #[test]
    fn a_job_is_let_go_for_the_services_no_and_one_that_was_seen_for_a_second_one() {
        let now = Now { monotonic: Monotonic::at(Duration::ZERO), wall: Timestamp::UNIX_EPOCH };
        let seen = Known {
            status: JobStatus::Failed,
            status_message: None,
            created_at: None,
            completed_at: None,
            sources: Arc::default(),
            since: now.wall,
            last_seen: now.wall,
            vanished_at: None,
        };
        let gone = Known { vanished_at: Some(now.wall), ..seen.clone() };
        let vanished = Detail { kind: DetailKind::Vanished, value: None, observed_at: now.wall };
        let first = Change { details: vec![vanished], ..Change::default() };
        let cases = [
            (Some(&gone), Some(FailureReason::NotFound), first, false),
            (Some(&gone), Some(FailureReason::NotFound), Change::default(), true),
            (Some(&gone), Some(FailureReason::Protocol), Change::default(), false),
            (Some(&seen), Some(FailureReason::Timeout), Change::default(), true),
            (Some(&seen), None, Change::default(), true),
            (None, Some(FailureReason::Timeout), Change::default(), false),
            (None, Some(FailureReason::AccessDenied), Change::default(), true),
            (None, Some(FailureReason::NotFound), Change::default(), true),
        ];
        for (known, reason, change, lets_go) in cases {
            let failure = reason.map(|reason| PollFailure { reason, message: String::new(), retry_after: None });
            let case = format!("{known:?} {reason:?} {change:?}");
            assert_eq!(Polled { now, failure, change }.lets_go(known), lets_go, "{case}");
        }
    }
}
