//! The delay after a failed poll, listing or probe: exponential, with jitter and a maximum.
//!
//! Only this file uses the `backoff` crate, because the crate is unmaintained. The crate's time limit and jitter are off. It still
//! reads a clock, without effect, and a global random generator, which changes a delay by 1 ns at most.

use std::time::Duration;

use ::backoff::ExponentialBackoff;
use ::backoff::backoff::Backoff as _;

/// From AWS's guidance ("Exponential backoff and jitter").
const MULTIPLIER: f64 = 2.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffPolicy {
    pub initial: Duration,
    pub max: Duration,
}

#[derive(Debug)]
pub struct Backoff {
    policy: BackoffPolicy,
    /// `None` before the first failure and after a reset. Boxed, because most jobs are not failing.
    intervals: Option<Box<ExponentialBackoff>>,
}

impl Backoff {
    #[must_use]
    pub fn new(policy: BackoffPolicy) -> Self {
        Self { policy, intervals: None }
    }

    /// The next delay. `jitter`, from 0 to 1, shortens it by up to half. Jobs that failed together are then not retried together.
    pub fn next_delay(&mut self, jitter: f64) -> Duration {
        let BackoffPolicy { initial, max } = self.policy;
        let intervals = self.intervals.get_or_insert_with(|| {
            Box::new(ExponentialBackoff {
                current_interval: initial,
                randomization_factor: 0.0,
                multiplier: MULTIPLIER,
                max_interval: max,
                max_elapsed_time: None,
                ..ExponentialBackoff::default()
            })
        });
        let interval = intervals.next_backoff().unwrap_or(max).min(max);
        interval.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }

    pub fn reset(&mut self) {
        self.intervals = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: BackoffPolicy = BackoffPolicy { initial: Duration::from_secs(1), max: Duration::from_mins(5) };

    #[test]
    fn the_delay_doubles_up_to_the_maximum_and_restarts_after_a_success() {
        let mut backoff = Backoff::new(POLICY);
        let intervals: Vec<u64> = (0..11).map(|_| backoff.next_delay(0.0).as_secs()).collect();
        assert_eq!(intervals, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        backoff.reset();
        assert_eq!(backoff.next_delay(0.0), POLICY.initial);
    }

    #[test]
    fn delays_continue_at_the_maximum() {
        let mut backoff = Backoff::new(POLICY);
        let last = (0..100_000).map(|_| backoff.next_delay(0.0)).last();
        assert_eq!(last, Some(POLICY.max));
    }

    #[test]
    fn delays_do_not_depend_on_the_time_since_the_first_failure() {
        let mut backoff = Backoff::new(POLICY);
        assert_eq!(backoff.next_delay(0.0).as_secs(), 1);
        let intervals = backoff.intervals.as_mut().expect("one delay was taken");
        intervals.start_time -= Duration::from_hours(1);
        assert_eq!(backoff.next_delay(0.0).as_secs(), 2);
    }

    proptest! {
        #[test]
        fn every_delay_lies_between_half_the_initial_delay_and_the_maximum(
            initial in 1_u64..10_000, more in 0_u64..1_000_000, jitters in prop::collection::vec(0.0..1.0, 1..40),
        ) {
            let policy =
                BackoffPolicy { initial: Duration::from_millis(initial), max: Duration::from_millis(initial + more) };
            let mut backoff = Backoff::new(policy);
            for jitter in jitters {
                let delay = backoff.next_delay(jitter);
                prop_assert!(policy.initial / 2 <= delay && delay <= policy.max, "{delay:?} out of {policy:?}");
            }
        }
    }
}
