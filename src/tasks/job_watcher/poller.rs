//! Polls one job when it is due: waits, sends one request, and lets [`JobTracker`] decide. It saves and publishes nothing, so
//! `refwatch wait` uses it without a database.

use std::sync::Arc;

use crate::core::failure::{PollFailure, Scope};
use crate::core::job::WatchId;
use crate::core::listing::listings_replace_polls;
use crate::core::time::Monotonic;
use crate::core::tracker::{Decision, JobState, JobTracker, NextAction, PollPolicy};
use crate::healthomics::{Priority, RequestPermit, Target};
use crate::tasks::hints::JobHints;

#[derive(Debug)]
pub(crate) struct Poller {
    target: Arc<Target>,
    id: Arc<WatchId>,
    watch: JobTracker,
    next: NextAction,
    hints: JobHints,
    /// When the last poll succeeded; `None` before the first one.
    fresh_at: Option<Monotonic>,
    failing: Option<Failing>,
}

/// The last poll failed.
#[derive(Clone, Copy, Debug)]
struct Failing {
    sent: Monotonic,
    /// Whether the backoff ends early when the target recovers.
    ends_with_outage: bool,
}

impl Poller {
    /// `known` is the state that the database holds. `seed` sets the jitter of the backoff.
    pub(crate) fn new(
        target: Arc<Target>,
        id: Arc<WatchId>,
        policy: PollPolicy,
        known: Option<Arc<JobState>>,
        hints: JobHints,
        seed: u64,
    ) -> Self {
        let watch = JobTracker::new(policy, known, seed);
        let next = watch.initial_action(target.clock().now());
        Self { target, id, watch, next, hints, fresh_at: None, failing: None }
    }

    pub(crate) fn aws_region(&self) -> &Arc<str> {
        self.target.aws_region()
    }

    pub(crate) fn known(&self) -> Option<&Arc<JobState>> {
        self.watch.state()
    }

    pub(crate) fn next(&self) -> &NextAction {
        &self.next
    }

    /// Reports the state of the job to the lister of its store.
    pub(crate) fn report(&self) {
        self.hints.report(self.next.clone(), self.known().cloned());
    }

    /// When the next poll is due; `None` if there is none. While the store is listed, a job without an interval of its own
    /// needs a poll only once in a safety interval.
    pub(crate) fn due(&self) -> Option<Monotonic> {
        let NextAction::PollAt(due) = self.next else { return None };
        let listed = listings_replace_polls(self.known().map(AsRef::as_ref), self.target.clock().now().wall);
        let stretches = listed && self.failing.is_none() && !self.watch.policy().fixed;
        let safety = self.hints.safety_interval().zip(self.fresh_at).filter(|_| stretches);
        Some(safety.map_or(due, |(interval, fresh_at)| due.max(fresh_at + interval)))
    }

    /// Polls once the job is due. Returns `None` if the job is due at another time by now, or not at all. Cancel safe: there
    /// is no await between the response and the return.
    pub(crate) async fn poll(&mut self) -> Option<Decision> {
        let permit = self.wait_for_permit(self.due()?).await?;
        let sent = self.target.clock().now().monotonic;
        let outcome = self.target.poll(&self.id.key).await;
        drop(permit);
        let now = self.target.clock().now();
        self.failing = outcome.as_ref().err().map(|failure| Failing::new(failure, sent));
        if outcome.is_ok() {
            self.fresh_at = Some(now.monotonic);
        }
        let decision = self.watch.handle(outcome, now);
        self.next = decision.next.clone();
        Some(decision)
    }

    /// Returns once a listing shows that a finished job has another status. Then the job is due at once.
    pub(crate) async fn wait_reopened(&mut self) {
        if !matches!(self.next, NextAction::Finished(_)) {
            std::future::pending::<()>().await;
        }
        self.hints.looks_changed().await;
        self.next = NextAction::PollAt(self.target.clock().now().monotonic);
    }

    /// Returns `None` when the safety interval changes before the job is due. A hint makes the poll due and urgent, unless the
    /// job is backing off.
    async fn wait_for_permit(&self, due: Monotonic) -> Option<RequestPermit> {
        let (target, store) = (&self.target, &self.id.key.store);
        if let Some(Failing { sent, ends_with_outage }) = self.failing {
            tokio::select! {
                biased;
                () = target.breaker_closed_after(store, sent), if ends_with_outage => {}
                () = target.clock().sleep_until(due) => {}
            }
            return Some(target.poll_permit(store, Priority::Routine).await);
        }
        tokio::select! {
            biased;
            () = self.hints.changed() => {
                if !self.hints.take_hint() {
                    return None;
                }
            }
            () = target.clock().sleep_until(due) => tokio::select! {
                biased;
                () = self.hints.looks_changed() => {}
                // A changed safety interval does not cost the job its place in the queue.
                permit = target.poll_permit(store, Priority::Routine) => return Some(permit),
            },
        }
        Some(target.poll_permit(store, Priority::Hinted).await)
    }
}

impl Failing {
    fn new(failure: &PollFailure, sent: Monotonic) -> Self {
        let shared = failure.reason.class().scope != Scope::Job;
        // A `Retry-After` is always waited out.
        Self { sent, ends_with_outage: shared && failure.retry_after.is_none() }
    }
}
