//! The circuit breaker: stops requests that are certain to fail.
//!
//! A breaker guards one target, or one operation on one store. It opens after [`FAILURES_MIN`] consecutive failures without a
//! success. While it is open, one probe at a time goes out, with a growing delay between probes. The first success closes it.
//! It sends nothing and reads no clock: `healthomics` reports how requests ended and makes the others wait.

use std::time::Duration;

use super::backoff::{Backoff, BackoffPolicy};
use super::failure::{FailureReason, PollFailure};
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
pub struct CircuitBreaker {
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
    last_failure: Monotonic,
    probe_at: Monotonic,
}

impl CircuitBreaker {
    /// A closed breaker. `policy` sets the delays between probes.
    #[must_use]
    pub fn new(policy: BackoffPolicy) -> Self {
        Self { failures: 0, first_failure: None, backoff: Backoff::new(policy), open: None, closed_at: None }
    }

    /// Counts a failure of a request that was sent at `sent`. Returns true if the breaker opened, or if its cause changed from
    /// unreachable to rejected or back.
    pub fn failed(&mut self, failure: &PollFailure, sent: Monotonic, now: Monotonic) -> bool {
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
    pub fn succeeded(&mut self, now: Monotonic) -> Option<Open> {
        self.failures = 0;
        self.first_failure = None;
        self.backoff.reset();
        let open = self.open.take();
        if open.is_some() {
            self.closed_at = Some(now);
        }
        open
    }

    /// The breaker's state while it is open.
    #[must_use]
    pub fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    /// When the next probe may go out; `None` while the breaker is closed.
    #[must_use]
    pub fn probe_at(&self) -> Option<Monotonic> {
        self.open.as_ref().map(|open| open.probe_at)
    }

    /// True if the breaker closed after `sent`.
    #[must_use]
    pub fn closed_after(&self, sent: Monotonic) -> bool {
        self.closed_at.is_some_and(|closed| closed > sent)
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

    /// Sent, failed, whether that is news, the next probe.
    type Step = (u64, u64, bool, Option<u64>);

    fn play(breaker: &mut CircuitBreaker, reason: FailureReason, script: &[Step]) {
        for (step, &(sent, failed, news, probe_at)) in script.iter().enumerate() {
            assert_eq!(breaker.failed(&failure(reason), at(sent), at(failed)), news, "step {step}");
            assert_eq!(breaker.probe_at(), probe_at.map(at), "step {step}");
        }
    }

    #[test]
    fn three_rejections_open_it_and_probes_become_rarer_until_one_succeeds() {
        let mut breaker = CircuitBreaker::new(POLICY);
        play(&mut breaker, FailureReason::Credentials, &[(0, 0, false, None), (0, 0, false, None)]);
        assert!(breaker.succeeded(at(0)).is_none() && !breaker.closed_after(at(0)), "two failures do not open it");
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
        assert_eq!(breaker.open().map(|open| &*open.message), Some("no: credentials"));
        assert!(breaker.succeeded(at(70)).is_some() && breaker.open().is_none());
        assert!(breaker.closed_after(at(69)) && !breaker.closed_after(at(70)));
    }

    #[test]
    fn an_unreachable_target_opens_it_after_half_a_minute_and_is_probed_every_15_seconds() {
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
    fn a_success_in_between_keeps_it_closed() {
        let mut breaker = CircuitBreaker::new(POLICY);
        for second in 0..200 {
            assert!(!breaker.failed(&failure(FailureReason::Connect), at(second), at(second)));
            if second % 20 == 19 {
                assert!(breaker.succeeded(at(second)).is_none());
            }
        }
    }
}
