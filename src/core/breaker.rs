//! The circuit breaker: stops requests that are certain to fail.
//!
//! A breaker guards one target, or one operation on one store. It opens after `FAILURES_MIN` consecutive failures without a
//! success. While it is open, one probe at a time goes out, with a growing delay between probes. The first success closes it.
//! It sends nothing and reads no clock: `healthomics` reports how requests ended and makes the others wait.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backoff::{Backoff, BackoffPolicy};
use super::failure::{FailureReason, Operation, PollFailure, QuotaEvidence, Scope};
use super::job::ReferenceStoreId;
use super::time::Monotonic;

/// Consecutive failures that open a breaker. Fewer can hit a working target: a key that was just replaced, a policy that has not
/// propagated yet.
const FAILURES_MIN: u32 = 3;

/// An unreachable target must have failed for this long. A request counts if it was sent this long after the first failure, so
/// requests that were in flight together and failed together count as one. A shorter outage leaves no backoff longer than
/// itself. The limit also bounds how often a target that works can call back jobs that fail for reasons of their own.
const UNREACHABLE_MIN: Duration = Duration::from_secs(30);

/// The longest delay between two probes of an unreachable target. One request in 15 s is no load, and a target with 1,000 jobs
/// needs the time after an outage for polling. A rejected identity is probed as rarely as `backoff_max` says.
const UNREACHABLE_PROBE_MAX: Duration = Duration::from_secs(15);

#[derive(Debug)]
struct CircuitBreaker {
    failures: u32,
    first_failure: Option<Monotonic>,
    backoff: Backoff,
    open: Option<Open>,
    closed_at: Option<Monotonic>,
}

/// What an open breaker publishes.
#[derive(Clone, Debug)]
pub struct Open {
    /// The message of the last failure.
    pub message: String,
    /// True if no request gets a usable response; false if requests are rejected.
    pub unreachable: bool,
    /// When the next probe may go out.
    pub probe_at: Monotonic,
    last_failure: Monotonic,
}

impl CircuitBreaker {
    fn new(policy: BackoffPolicy) -> Self {
        Self { failures: 0, first_failure: None, backoff: Backoff::new(policy), open: None, closed_at: None }
    }

    /// Counts a failure of a request that was sent at `sent`. Returns true if the breaker opened, or if its cause changed from
    /// unreachable to rejected or back.
    fn failed(&mut self, failure: &PollFailure, sent: Monotonic, now: Monotonic) -> bool {
        self.failures = self.failures.saturating_add(1);
        let first_failure = *self.first_failure.get_or_insert(now);
        let unreachable = !matches!(failure.reason, FailureReason::AccessDenied | FailureReason::Credentials);
        let opens = self.failures >= FAILURES_MIN && (!unreachable || sent.since(first_failure) >= UNREACHABLE_MIN);
        let counts = match &self.open {
            None => opens,
            // A request that was sent before the last failure was known is not a probe.
            Some(open) => sent >= open.last_failure,
        };
        if !counts {
            return false;
        }
        // Only one probe is in flight, so its delay needs no jitter.
        let delay = self.backoff.next_delay(0.0);
        let delay = if unreachable { delay.min(UNREACHABLE_PROBE_MAX) } else { delay };
        let message = failure.message.clone();
        // A probe may take as long as the timeout, so delays count from one send to the next.
        let before = self.open.replace(Open { message, unreachable, last_failure: now, probe_at: sent + delay });
        before.is_none_or(|before| before.unreachable != unreachable)
    }

    /// Resets the breaker after a success. Returns its state if it was open.
    fn succeeded(&mut self, now: Monotonic) -> Option<Open> {
        self.failures = 0;
        self.first_failure = None;
        self.backoff.reset();
        let open = self.open.take();
        if open.is_some() {
            self.closed_at = Some(now);
        }
        open
    }
}

/// Every breaker of one target.
#[derive(Debug)]
pub struct TargetBreakers {
    policy: BackoffPolicy,
    breakers: BTreeMap<BreakerKey, CircuitBreaker>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakerKey {
    Target,
    /// One for each operation on each store, since IAM policies name stores.
    Store(Operation, ReferenceStoreId),
}

/// A breaker that opened or closed, or an open one whose cause changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerEvent {
    pub key: BreakerKey,
    pub opened: bool,
    pub unreachable: bool,
}

impl TargetBreakers {
    #[must_use]
    pub fn new(policy: BackoffPolicy) -> Self {
        Self { policy, breakers: BTreeMap::new() }
    }

    /// Takes in how a request to `store` ended that was sent at `sent`.
    pub fn request_ended(
        &mut self,
        operation: Operation,
        store: &ReferenceStoreId,
        failure: Option<&PollFailure>,
        sent: Monotonic,
        now: Monotonic,
    ) -> Vec<BreakerEvent> {
        let class = failure.map(|failure| failure.reason.class());
        let scope = class.map_or(Scope::Job, |class| class.scope);
        // A throttled request may have been rejected before anything else was checked.
        if class.is_some_and(|class| class.quota == QuotaEvidence::Exceeded) {
            return Vec::new();
        }
        let store = BreakerKey::Store(operation, store.clone());
        let failed = match scope {
            Scope::Job => None,
            Scope::Store => Some(store.clone()),
            Scope::Target => Some(BreakerKey::Target),
        };
        let succeeded = match scope {
            Scope::Job => vec![BreakerKey::Target, store],
            Scope::Store => vec![BreakerKey::Target],
            Scope::Target => Vec::new(),
        };
        let mut events = Vec::new();
        for key in succeeded {
            if let Some(open) = self.breaker(&key).succeeded(now) {
                events.push(BreakerEvent { key, opened: false, unreachable: open.unreachable });
            }
        }
        if let Some((key, failure)) = failed.zip(failure)
            && self.breaker(&key).failed(failure, sent, now)
        {
            let unreachable = self.open(&key).is_some_and(|open| open.unreachable);
            events.push(BreakerEvent { key, opened: true, unreachable });
        }
        events
    }

    /// The state of a breaker while it is open.
    #[must_use]
    pub fn open(&self, key: &BreakerKey) -> Option<&Open> {
        self.breakers.get(key)?.open.as_ref()
    }

    /// True if a breaker that blocks polls of `store` has closed after `sent`.
    #[must_use]
    pub fn breaker_closed_after(&self, store: &ReferenceStoreId, sent: Monotonic) -> bool {
        let store = BreakerKey::Store(Operation::GetReferenceImportJob, store.clone());
        let closed = |key| self.breakers.get(key).and_then(|breaker| breaker.closed_at);
        [&BreakerKey::Target, &store].into_iter().filter_map(closed).any(|closed| closed > sent)
    }

    /// Why the target is down: its own breaker is open, or access is denied to every store that it polls, or lists if it polls none.
    #[must_use]
    pub fn down(&self) -> Option<&str> {
        let open = self.open(&BreakerKey::Target).or_else(|| {
            let of = |wanted| {
                let keys = self.breakers.keys();
                keys.filter(move |key| matches!(key, BreakerKey::Store(operation, _) if *operation == wanted))
            };
            let used = Operation::ALL.into_iter().find(|&operation| of(operation).next().is_some())?;
            of(used).map(|key| self.open(key)).collect::<Option<Vec<_>>>()?.pop()
        });
        Some(&open?.message)
    }

    fn breaker(&mut self, key: &BreakerKey) -> &mut CircuitBreaker {
        self.breakers.entry(key.clone()).or_insert_with(|| CircuitBreaker::new(self.policy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: BackoffPolicy = BackoffPolicy { initial: Duration::from_secs(1), max: Duration::from_mins(5) };

    fn at(seconds: u64) -> Monotonic {
        Monotonic::at(Duration::from_secs(seconds))
    }

    fn failure(reason: FailureReason) -> PollFailure {
        PollFailure { reason, message: format!("no: {}", reason.label()), retry_after: None }
    }

    /// Seconds at which the request was sent and failed, whether it caused an event, the next probe.
    type Step = (u64, u64, bool, Option<u64>);

    fn play(breaker: &mut CircuitBreaker, reason: FailureReason, script: &[Step]) {
        for (step, &(sent, failed, news, probe_at)) in script.iter().enumerate() {
            assert_eq!(breaker.failed(&failure(reason), at(sent), at(failed)), news, "step {step}");
            assert_eq!(breaker.open.as_ref().map(|open| open.probe_at), probe_at.map(at), "step {step}");
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
            // Sent before the last failure was known: not a probe.
            (1, 3, false, Some(2)),
            (3, 3, false, Some(5)),
            (5, 6, false, Some(9)),
            (10, 10, false, Some(18)),
            (18, 18, false, Some(34)),
            (34, 34, false, Some(66)),
        ];
        play(&mut breaker, FailureReason::Credentials, &script);
        assert_eq!(breaker.open.as_ref().map(|open| &*open.message), Some("no: credentials"));
        assert!(breaker.succeeded(at(70)).is_some() && breaker.open.is_none());
        assert_eq!(breaker.closed_at, Some(at(70)));
    }

    #[test]
    fn an_unreachable_target_opens_the_breaker_after_30_seconds_and_is_probed_every_15() {
        let mut breaker = CircuitBreaker::new(POLICY);
        let script = [
            (0, 20, false, None),
            // In flight together with the first one.
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
        let (get, list) = (Operation::GetReferenceImportJob, Operation::ListReferenceImportJobs);
        let mut breakers = TargetBreakers::new(POLICY);
        let [one, other]: [ReferenceStoreId; 2] = ["1111111111", "2222222222"].map(|id| id.parse().expect("a store"));
        let mut end = |operation, store: &ReferenceStoreId, reason: Option<FailureReason>, second| {
            let failure = reason.map(failure);
            let events = breakers.request_ended(operation, store, failure.as_ref(), at(second), at(second));
            let down = breakers.down().map(str::to_owned);
            (events.into_iter().map(|event| (event.key, event.opened)).collect::<Vec<_>>(), down)
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
        let key = |store: &ReferenceStoreId| BreakerKey::Store(get, store.clone());
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
        assert_eq!(end(get, &one, Some(Throttled), 7), (Vec::new(), rejected), "no evidence");
        assert_eq!(end(get, &one, Some(Connect), 8).0, [(BreakerKey::Target, true)], "another cause");
        assert_eq!(end(get, &one, Some(AccessDenied), 9), (vec![(BreakerKey::Target, false)], down));
        assert_eq!(end(get, &one, Some(NotFound), 10), (vec![(key(&one), false)], None));
        assert!(breakers.breaker_closed_after(&one, at(9)) && !breakers.breaker_closed_after(&one, at(10)));
        assert!(breakers.breaker_closed_after(&other, at(8)) && !breakers.breaker_closed_after(&other, at(9)));
    }
}
