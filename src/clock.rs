//! Reads the clocks and sleeps. A lint forbids both in other modules, which receive a [`Clock`] or a [`Now`].
//!
//! Tests and simulations thus control the time that all other code sees.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep};

use crate::core::time::{Monotonic, Now, Timestamp};

/// In place of a time that the clock of the system cannot represent: 100 years.
const FAR: Duration = Duration::from_hours(100 * 365 * 24);

/// A monotonic clock and a wall clock, read together.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// The wall clock time at `origin`, if the wall clock is simulated.
    simulated: Option<Timestamp>,
}

impl Clock {
    /// The machine's clocks. The monotonic clock starts at zero.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one module that reads clocks")]
    pub fn system() -> Self {
        Self { origin: Instant::now(), simulated: None }
    }

    /// A wall clock that starts at `start` and advances with tokio's clock, which a simulation pauses.
    #[must_use]
    pub fn simulated(start: Timestamp) -> Self {
        Self { simulated: Some(start), ..Self::system() }
    }

    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one module that reads clocks")]
    pub fn now(self) -> Now {
        let elapsed = self.origin.elapsed();
        // A wall clock before year -9999 or after 9999 reads as the Unix epoch. Schedules use the monotonic clock.
        let wall = match self.simulated {
            Some(start) => start.checked_add(elapsed).unwrap_or_default(),
            None => Timestamp::try_from(SystemTime::now()).unwrap_or_default(),
        };
        Now { monotonic: Monotonic::at(elapsed), wall }
    }

    /// Completes at `at`, or at once if `at` has passed.
    #[expect(clippy::disallowed_methods, reason = "the one module that sleeps")]
    pub fn sleep_until(self, at: Monotonic) -> Sleep {
        let at = self.origin.checked_add(at.elapsed()).unwrap_or(self.origin + FAR);
        tokio::time::sleep_until(at)
    }

    #[expect(clippy::disallowed_methods, reason = "the one module that sleeps")]
    pub fn sleep(self, duration: Duration) -> Sleep {
        tokio::time::sleep(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_time_that_the_clock_cannot_represent_is_far_in_the_future() {
        let clock = Clock::system();
        let far = clock.now().monotonic + Duration::MAX;
        assert!(tokio::time::timeout(Duration::from_hours(24), clock.sleep_until(far)).await.is_err());
    }
}
