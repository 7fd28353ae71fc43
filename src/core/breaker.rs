//! The circuit breaker: stops requests that are almost certain to fail.
//!
//! A breaker guards one target, or one operation on one store. It opens after `FAILURES_MIN` consecutive failures; if the target
//! is unreachable, `UNREACHABLE_MIN` must also have passed. While it is open, one probe at a time is sent, with growing delays. It
//! closes at the first response that shows that the guarded requests work. This module sends nothing and reads no clock:
//! `crate::healthomics` reports how requests ended, and makes the other requests wait.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backoff::{Backoff, BackoffPolicy};
use super::failure::{Operation, QuotaEvidence, RequestFailure, Scope};
use super::job::StoreId;
use super::kind::JobKind;
use super::time::Monotonic;

/// Consecutive failures that open a breaker. Two failures can happen to a working target, while a new key or policy propagates.
const FAILURES_MIN: u32 = 3;

/// The breaker of an unreachable target opens only on a request that was sent 30 s or more after the first failure was known. One
/// burst of requests cannot open it.
const UNREACHABLE_MIN: Duration = Duration::from_secs(30);

/// The longest delay between two probes of an unreachable target. One request in 15 s is no load, and polling resumes soon after an
/// outage. After a rejection, the delay grows to the maximum of the `BackoffPolicy`.
const UNREACHABLE_PROBE_MAX: Duration = Duration::from_secs(15);

#[derive(Debug)]
struct CircuitBreaker {
    failures: u32,
    /// When the first of them was known.
    first_failure: Option<Monotonic>,
    backoff: Backoff,
    /// `None` while the breaker is closed.
    open_state: Option<OpenState>,
    closed_at: Option<Monotonic>,
}

/// Why a breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenCause {
    /// No request gets a usable response.
    Unreachable,
    /// There are no credentials, or requests are rejected because of their credentials or permissions.
    Rejected,
}

#[derive(Clone, Debug)]
pub struct OpenState {
    /// The message of the failure that opened the breaker, or of the last failed probe.
    pub message: String,
    pub cause: OpenCause,
    /// When the next probe may be sent.
    pub probe_at: Monotonic,
    /// When the failure of `message` was known.
    failed_at: Monotonic,
}

impl CircuitBreaker {
    fn new(policy: BackoffPolicy) -> Self {
        Self { failures: 0, first_failure: None, backoff: Backoff::new(policy), open_state: None, closed_at: None }
    }

    /// Records the failure of a request that was sent at `sent_at`. Returns true if the breaker opened, or if its cause changed.
    fn failed(&mut self, failure: &RequestFailure, sent_at: Monotonic, now: Monotonic) -> bool {
        self.failures = self.failures.saturating_add(1);
        let first_failure = *self.first_failure.get_or_insert(now);
        let cause = if failure.reason.info().needs_operator { OpenCause::Rejected } else { OpenCause::Unreachable };
        let is_unreachable = cause == OpenCause::Unreachable;
        let opens_or_probe = match &self.open_state {
            None => {
                self.failures >= FAILURES_MIN && (!is_unreachable || sent_at.since(first_failure) >= UNREACHABLE_MIN)
            }
            // A request that was sent before the recorded failure was known is not a probe.
            Some(open_state) => sent_at >= open_state.failed_at,
        };
        if !opens_or_probe {
            return false;
        }
        // Only one probe is in flight, so its delay needs no jitter.
        let delay = self.backoff.next_delay(0.0);
        let delay = if is_unreachable { delay.min(UNREACHABLE_PROBE_MAX) } else { delay };
        let message = failure.message.clone();
        // The delay starts when the probe is sent, because a probe may last as long as its timeout.
        let probe_at = sent_at + delay;
        let before = self.open_state.replace(OpenState { message, cause, probe_at, failed_at: now });
        before.is_none_or(|before| before.cause != cause)
    }

    /// Closes the breaker and resets its counts. Returns its state if it was open.
    fn succeeded(&mut self, now: Monotonic) -> Option<OpenState> {
        self.failures = 0;
        self.first_failure = None;
        self.backoff.reset();
        let open_state = self.open_state.take();
        if open_state.is_some() {
            self.closed_at = Some(now);
        }
        open_state
    }
}

#[derive(Debug)]
pub struct TargetBreakers {
    policy: BackoffPolicy,
    /// Never removed: the breaker of a store that is no longer used keeps its state.
    breakers: BTreeMap<BreakerKey, CircuitBreaker>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakerKey {
    Target,
    /// One operation, and so one kind, on one store, because IAM policies name both.
    Store(Operation, StoreId),
}

/// A breaker opened or closed, or the cause of an open breaker changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerEvent {
    pub key: BreakerKey,
    pub is_open: bool,
    /// Why the breaker is open or, if it closed, was open.
    pub cause: OpenCause,
}

impl TargetBreakers {
    #[must_use]
    pub fn new(policy: BackoffPolicy) -> Self {
        Self { policy, breakers: BTreeMap::new() }
    }

    /// Records the end of a request to `store`, sent at `sent_at`.
    pub fn request_ended(
        &mut self,
        operation: Operation,
        store: &StoreId,
        failure: Option<&RequestFailure>,
        sent_at: Monotonic,
        now: Monotonic,
    ) -> Vec<BreakerEvent> {
        let info = failure.map(|failure| failure.reason.info());
        // A throttle shows nothing about a breaker: AWS may throttle a request before it checks anything else.
        if info.is_some_and(|info| info.quota == QuotaEvidence::Exceeded) {
            return Vec::new();
        }
        let store = BreakerKey::Store(operation, store.clone());
        // A success, like a failure of one job, shows that the target and the store work.
        let (failed, succeeded) = match info.map_or(Scope::Job, |info| info.scope) {
            Scope::Job => (None, vec![BreakerKey::Target, store]),
            Scope::Store => (Some(store), vec![BreakerKey::Target]),
            Scope::Target => (Some(BreakerKey::Target), Vec::new()),
        };
        let mut events = Vec::new();
        for key in succeeded {
            if let Some(before) = self.breaker(&key).succeeded(now) {
                events.push(BreakerEvent { key, is_open: false, cause: before.cause });
            }
        }
        if let Some((key, failure)) = failed.zip(failure)
            && self.breaker(&key).failed(failure, sent_at, now)
            && let Some(cause) = self.state_if_open(&key).map(|state| state.cause)
        {
            events.push(BreakerEvent { key, is_open: true, cause });
        }
        events
    }

    #[must_use]
    pub fn state_if_open(&self, key: &BreakerKey) -> Option<&OpenState> {
        self.breakers.get(key)?.open_state.as_ref()
    }

    /// True if the target's breaker, or the one for polls of `kind` in `store`, closed after `sent_at`. Failed jobs are then polled
    /// early. `UNREACHABLE_MIN` limits how often this happens to jobs that keep failing on a working target.
    #[must_use]
    pub fn breaker_closed_after(&self, kind: JobKind, store: &StoreId, sent_at: Monotonic) -> bool {
        let store = BreakerKey::Store(Operation::Get(kind), store.clone());
        let closed = |key| self.breakers.get(key).and_then(|breaker| breaker.closed_at);
        [&BreakerKey::Target, &store].into_iter().filter_map(closed).any(|closed| closed > sent_at)
    }

    /// Why the target is down, if it is. Its own breaker is open, or every store breaker of a `Get` operation is open. If there
    /// are none of these, every store breaker of a `List` operation is open.
    #[must_use]
    pub fn down_message(&self) -> Option<&str> {
        let (gets, lists): (Vec<_>, Vec<_>) = (self.breakers.keys().filter(|key| **key != BreakerKey::Target))
            .partition(|key| matches!(key, BreakerKey::Store(Operation::Get(_), _)));
        let open_state = self.state_if_open(&BreakerKey::Target).or_else(|| {
            let keys = if gets.is_empty() { lists } else { gets };
            keys.into_iter().map(|key| self.state_if_open(key)).collect::<Option<Vec<_>>>()?.pop()
        });
        Some(&open_state?.message)
    }

    fn breaker(&mut self, key: &BreakerKey) -> &mut CircuitBreaker {
        self.breakers.entry(key.clone()).or_insert_with(|| CircuitBreaker::new(self.policy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::failure::FailureReason;

    const POLICY: BackoffPolicy = BackoffPolicy { initial: Duration::from_secs(1), max: Duration::from_mins(5) };

    fn at(seconds: u64) -> Monotonic {
        Monotonic::at(Duration::from_secs(seconds))
    }

    fn failure(reason: FailureReason) -> RequestFailure {
        RequestFailure { reason, message: format!("no: {}", reason.label()), retry_after: None }
    }

    /// When the request was sent and when it failed, whether `failed` returned true, when the next probe may be sent. In seconds.
    type Step = (u64, u64, bool, Option<u64>);

    fn play(breaker: &mut CircuitBreaker, reason: FailureReason, script: &[Step]) {
        for (step, &(sent, failed, changed, probe_at)) in script.iter().enumerate() {
            assert_eq!(breaker.failed(&failure(reason), at(sent), at(failed)), changed, "step {step}");
            assert_eq!(breaker.open_state.as_ref().map(|state| state.probe_at), probe_at.map(at), "step {step}");
        }
    }

    #[test]
    fn three_rejections_open_the_breaker_and_probes_become_rarer_until_one_succeeds() {
        let mut breaker = CircuitBreaker::new(POLICY);
        play(&mut breaker, FailureReason::Credentials, &[(0, 0, false, None), (0, 0, false, None)]);
        assert!(breaker.succeeded(at(0)).is_none() && breaker.closed_at.is_none(), "two failures do not open it");
        let script = [
            (1, 2, false, None),
            (1, 2, false, None),
            (1, 2, true, Some(2)),
            // Sent before the recorded failure was known: not a probe.
            (1, 3, false, Some(2)),
            (3, 3, false, Some(5)),
            (5, 6, false, Some(9)),
            (10, 10, false, Some(18)),
            (18, 18, false, Some(34)),
            (34, 34, false, Some(66)),
        ];
        play(&mut breaker, FailureReason::Credentials, &script);
        assert_eq!(breaker.open_state.as_ref().map(|state| &*state.message), Some("no: credentials"));
        assert!(breaker.succeeded(at(70)).is_some() && breaker.open_state.is_none());
        assert_eq!(breaker.closed_at, Some(at(70)));
    }

    #[test]
    fn an_unreachable_target_opens_the_breaker_after_30_seconds_and_is_probed_every_15() {
        let mut breaker = CircuitBreaker::new(POLICY);
        let script = [
            (0, 20, false, None),
            // Sent before the first failure was known.
            (19, 39, false, None),
            (40, 60, false, None),
            (49, 69, false, None),
            (50, 70, true, Some(51)),
            (70, 90, false, Some(72)),
            (90, 110, false, Some(94)),
            (110, 111, false, Some(118)),
            (118, 119, false, Some(133)),
            (133, 134, false, Some(148)),
        ];
        play(&mut breaker, FailureReason::Timeout, &script);
        assert!(breaker.failed(&failure(FailureReason::Credentials), at(148), at(149)), "another cause");
        assert!(!breaker.failed(&failure(FailureReason::Credentials), at(300), at(300)));
    }

    #[test]
    fn a_success_between_failures_keeps_the_breaker_closed() {
        let mut breaker = CircuitBreaker::new(POLICY);
        for second in 0..200 {
            assert!(!breaker.failed(&failure(FailureReason::Connect), at(second), at(second)));
            if second % 20 == 19 {
                assert!(breaker.succeeded(at(second)).is_none());
            }
        }
    }

    #[test]
    fn a_failure_counts_against_its_scope_and_closes_the_wider_breakers() {
        use FailureReason::{AccessDenied, Connect, Credentials, NotFound, Throttled};
        let (get, list) = (Operation::Get(JobKind::ReferenceImport), Operation::List(JobKind::ReferenceImport));
        let mut breakers = TargetBreakers::new(POLICY);
        let [one, other]: [StoreId; 2] = ["1111111111", "2222222222"].map(|id| id.parse().expect("a store"));
        let mut end = |operation, store: &StoreId, reason: Option<FailureReason>, second| {
            let failure = reason.map(failure);
            let events = breakers.request_ended(operation, store, failure.as_ref(), at(second), at(second));
            let down = breakers.down_message().map(str::to_owned);
            (events.into_iter().map(|event| (event.key, event.is_open)).collect::<Vec<_>>(), down)
        };
        let up = (Vec::new(), None);
        for (operation, store, reason) in [
            (get, &one, Some(AccessDenied)),
            (get, &one, Some(AccessDenied)),
            (get, &other, None),
            (list, &one, Some(AccessDenied)),
        ] {
            assert_eq!(end(operation, store, reason, 1), up);
        }
        let key = |store: &StoreId| BreakerKey::Store(get, store.clone());
        assert_eq!(end(get, &one, Some(AccessDenied), 2), (vec![(key(&one), true)], None), "the other store works");
        assert_eq!(end(get, &other, Some(AccessDenied), 3), up);
        assert_eq!(end(get, &other, Some(AccessDenied), 3), up);
        let down = Some("no: access_denied".to_owned());
        assert_eq!(end(get, &other, Some(AccessDenied), 3), (vec![(key(&other), true)], down.clone()));
        for second in [4, 5] {
            assert_eq!(end(get, &one, Some(Credentials), second), (Vec::new(), down.clone()));
        }
        let rejected = Some("no: credentials".to_owned());
        assert_eq!(end(get, &one, Some(Credentials), 6), (vec![(BreakerKey::Target, true)], rejected.clone()));
        assert_eq!(end(get, &one, Some(Throttled), 7), (Vec::new(), rejected), "a throttle shows nothing");
        assert_eq!(end(get, &one, Some(Connect), 8).0, [(BreakerKey::Target, true)], "another cause");
        assert_eq!(end(get, &one, Some(AccessDenied), 9), (vec![(BreakerKey::Target, false)], down));
        assert_eq!(end(get, &one, Some(NotFound), 10), (vec![(key(&one), false)], None));
        assert!(
            breakers.breaker_closed_after(JobKind::ReferenceImport, &one, at(9))
                && !breakers.breaker_closed_after(JobKind::ReferenceImport, &one, at(10))
        );
        assert!(
            breakers.breaker_closed_after(JobKind::ReferenceImport, &other, at(8))
                && !breakers.breaker_closed_after(JobKind::ReferenceImport, &other, at(9))
        );
    }
}
