//! Polls one job when it is due: waits, sends one request, and passes the outcome to [`JobTracker`], which decides the next action and the
//! change to save. Uses no database and publishes no view, so `refwatch wait` uses it too.

use std::sync::Arc;

use crate::core::failure::{RequestFailure, Scope};
use crate::core::job::TargetJob;
use crate::core::listing::listing_can_replace_poll;
use crate::core::time::Monotonic;
use crate::core::tracker::{Decision, JobState, JobTracker, NextAction, PollPolicy};
use crate::healthomics::{Priority, RequestPermit, Target};
use crate::tasks::registry::WatcherSlot;

#[derive(Debug)]
pub(crate) struct Poller {
    target: Arc<Target>,
    id: Arc<TargetJob>,
    tracker: JobTracker,
    next_action: NextAction,
    /// Holds the lister's hints and routine interval for this poller, and this poller's last report for the lister.
    slot: WatcherSlot,
    /// When the last poll succeeded; `None` before the first success.
    last_success: Option<Monotonic>,
    /// The failure of the last poll; `None` if that succeeded or there was no poll.
    last_failure: Option<LastFailure>,
}

#[derive(Clone, Copy, Debug)]
struct LastFailure {
    request_sent: Monotonic,
    /// Whether the backoff ends early when the breaker of the target, or of polls in this store, closes after `request_sent`.
    retry_on_recovery: bool,
}

impl Poller {
    /// `known` is the state in the database. `seed` sets the jitter of the backoff.
    pub(crate) fn new(
        target: Arc<Target>,
        id: Arc<TargetJob>,
        policy: PollPolicy,
        known: Option<Arc<JobState>>,
        slot: WatcherSlot,
        seed: u64,
    ) -> Self {
        let tracker = JobTracker::new(policy, known, seed);
        let next_action = tracker.initial_action(target.clock().now());
        Self { target, id, tracker, next_action, slot, last_success: None, last_failure: None }
    }

    pub(crate) fn aws_region(&self) -> &Arc<str> {
        self.target.aws_region()
    }

    pub(crate) fn known(&self) -> Option<&Arc<JobState>> {
        self.tracker.state()
    }

    pub(crate) fn next_action(&self) -> &NextAction {
        &self.next_action
    }

    pub(crate) fn report_to_registry(&self) {
        self.slot.report(self.next_action.clone(), self.known().cloned());
    }

    /// When the next poll is due; `None` if the next action is not a poll. The routine interval delays polls of listable jobs,
    /// unless the last poll failed or the user set the poll interval.
    pub(crate) fn due(&self) -> Option<Monotonic> {
        let NextAction::PollAt(due) = self.next_action else { return None };
        let listable = listing_can_replace_poll(self.known().map(AsRef::as_ref), self.target.clock().now().wall);
        let may_be_delayed = listable && self.last_failure.is_none() && !self.tracker.policy().is_interval_set;
        match (self.slot.routine_interval(), self.last_success) {
            (Some(interval), Some(last_success)) if may_be_delayed => Some(due.max(last_success + interval)),
            _ => Some(due),
        }
    }

    /// Waits until the job is due, then polls it. Returns `None` without a poll if the due time may have changed, or if [`Self::due`] is
    /// `None`. Cancellation ends a request in flight and may lose a hint.
    pub(crate) async fn poll(&mut self) -> Option<Decision> {
        let permit = self.wait_for_permit(self.due()?).await?;
        let sent_at = self.target.clock().now().monotonic;
        let outcome = self.target.poll(&self.id.key, permit).await;
        let now = self.target.clock().now();
        self.last_failure = outcome.as_ref().err().map(|failure| LastFailure::new(failure, sent_at));
        if outcome.is_ok() {
            self.last_success = Some(now.monotonic);
        }
        let decision = self.tracker.handle(outcome, now);
        self.next_action = decision.next.clone();
        Some(decision)
    }

    /// Waits for a hint that a finished job may have been reopened. The next action is then a poll. Never returns for a parked job.
    pub(crate) async fn wait_for_reopening_hint(&mut self) {
        if !matches!(self.next_action, NextAction::Finished(_)) {
            std::future::pending::<()>().await;
        }
        self.slot.next_hint().await;
        // Puts the hint back: `wait_for_permit` takes it and gives the poll priority.
        self.slot.hint();
        self.next_action = NextAction::PollAt(self.target.clock().now().monotonic);
    }

    /// Waits until the time `due`, then for a permit. Returns `None` if the routine interval may have changed before that time. A hint ends
    /// the wait at once and gives the poll priority. After a failure, retries have routine priority, and a hint
    /// waits in the slot. Once a retry has succeeded, the hint causes one more poll.
    async fn wait_for_permit(&self, due: Monotonic) -> Option<RequestPermit> {
        let (target, key) = (&self.target, &self.id.key);
        if let Some(LastFailure { request_sent, retry_on_recovery }) = self.last_failure {
            tokio::select! {
                biased;
                () = target.wait_for_breaker_close(key.kind, &key.store, request_sent), if retry_on_recovery => {}
                () = target.clock().sleep_until(due) => {}
            }
            return Some(target.poll_permit(key, Priority::Routine).await);
        }
        tokio::select! {
            biased;
            () = self.slot.woken() => {
                if !self.slot.take_hint() {
                    return None;
                }
            }
            () = target.clock().sleep_until(due) => tokio::select! {
                biased;
                () = self.slot.next_hint() => {}
                // `next_hint` and not `woken`: a changed routine interval must not cost the request its place in the queue.
                permit = target.poll_permit(key, Priority::Routine) => return Some(permit),
            },
        }
        Some(target.poll_permit(key, Priority::Hinted).await)
    }
}

impl LastFailure {
    fn new(failure: &RequestFailure, request_sent: Monotonic) -> Self {
        // Only failures of a whole store or target open a circuit breaker.
        let has_breaker = failure.reason.info().scope != Scope::Job;
        // A recovery does not shorten a `Retry-After`.
        Self { request_sent, retry_on_recovery: has_breaker && failure.retry_after.is_none() }
    }
}
