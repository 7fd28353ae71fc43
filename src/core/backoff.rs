//! The delay after failed polls: exponential, with jitter, and with an upper bound that holds.
//!
//! The policy is the `backoff` crate's `ExponentialBackoff`; this file is the only one that knows. The crate is no longer
//! maintained, so it is held to one task, the sequence of steps, and its traps are closed here: it gives up after 15 minutes
//! unless told not to, it adds jitter after the cap, it draws that jitter from a global generator, and it reads a clock.

use std::time::Duration;

use ::backoff::backoff::Backoff as _;
use ::backoff::exponential::ExponentialBackoff;

/// Doubling is what AWS's own guidance uses ("Exponential backoff and jitter").
const MULTIPLIER: f64 = 2.0;

/// The bounds of the delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// The delay after the first failure.
    pub initial: Duration,
    /// The longest delay.
    pub max: Duration,
}

/// The state of one backoff: how far it has grown.
#[derive(Debug)]
pub struct Backoff {
    policy: BackoffPolicy,
    /// `None` while nothing fails, as it is for nearly every job nearly always: there is one of these for each of them.
    steps: Option<Box<ExponentialBackoff<StandingClock>>>,
}

/// The crate asks a clock how long it has been at it, only to give up in time; ours never gives up, so it stands still.
#[derive(Debug)]
struct StandingClock(std::time::Instant);

impl ::backoff::Clock for StandingClock {
    fn now(&self) -> std::time::Instant {
        self.0
    }
}

impl Backoff {
    /// A backoff that has not begun.
    #[must_use]
    pub fn new(policy: BackoffPolicy) -> Self {
        Self { policy, steps: None }
    }

    /// The next delay: between half the step and the whole of it, by `jitter` from 0 to 1, so that jobs which failed
    /// together do not come back together, and never over the maximum.
    pub fn next_delay(&mut self, jitter: f64) -> Duration {
        let BackoffPolicy { initial, max } = self.policy;
        let steps = self.steps.get_or_insert_with(|| {
            let origin = ::backoff::ExponentialBackoff::default().start_time;
            Box::new(ExponentialBackoff {
                current_interval: initial,
                initial_interval: initial,
                randomization_factor: 0.0,
                multiplier: MULTIPLIER,
                max_interval: max,
                start_time: origin,
                max_elapsed_time: None,
                clock: StandingClock(origin),
            })
        });
        let step = steps.next_backoff().unwrap_or(max).min(max);
        step.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// Begins anew: something succeeded.
    pub fn reset(&mut self) {
        self.steps = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: BackoffPolicy = BackoffPolicy { initial: Duration::from_secs(1), max: Duration::from_mins(5) };

    #[test]
    fn the_delay_doubles_up_to_the_maximum_and_starts_anew_after_a_success() {
        let mut backoff = Backoff::new(POLICY);
        let steps: Vec<u64> = (0..11).map(|_| backoff.next_delay(0.0).as_secs()).collect();
        assert_eq!(steps, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        backoff.reset();
        assert_eq!(backoff.next_delay(0.0), POLICY.initial);
    }

    #[test]
    fn it_never_gives_up() {
        let mut backoff = Backoff::new(POLICY);
        let last = (0..100_000).map(|_| backoff.next_delay(0.0)).last();
        assert_eq!(last, Some(POLICY.max));
    }

    proptest! {
        #[test]
        fn every_delay_lies_between_half_the_initial_one_and_the_maximum(
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
