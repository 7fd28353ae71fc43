//! The only reader of clocks, and the only sleeper. Everything else is handed a [`Now`].

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep};

use crate::core::time::{Monotonic, Now, Timestamp};

/// A pair of clocks with a common origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// What the wall clock shows at the origin, where it is simulated.
    simulated: Option<Timestamp>,
}

impl Clock {
    /// The machine's clocks, counted from now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one room that reads clocks")]
    pub fn system() -> Self {
        Self { origin: Instant::now(), simulated: None }
    }

    /// Clocks that agree: the wall clock shows `start` now, and goes as tokio's does, which a simulation pauses.
    #[must_use]
    pub fn simulated(start: Timestamp) -> Self {
        Self { simulated: Some(start), ..Self::system() }
    }

    /// Both clocks, read together.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one room that reads clocks")]
    pub fn now(self) -> Now {
        let elapsed = self.origin.elapsed();
        // A wall clock out of range (before year -9999 or after 9999) reads as the Unix epoch: schedules do not use it.
        let wall = match self.simulated {
            Some(start) => start.checked_add(elapsed).unwrap_or_default(),
            None => Timestamp::try_from(SystemTime::now()).unwrap_or_default(),
        };
        Now { monotonic: Monotonic::at(elapsed), wall }
    }

    /// Returns at `at`, at once if that has passed.
    #[expect(clippy::disallowed_methods, reason = "the one room that sleeps")]
    pub fn sleep_until(self, at: Monotonic) -> Sleep {
        tokio::time::sleep_until(self.origin + at.elapsed())
    }

    /// Returns after `duration`.
    #[expect(clippy::disallowed_methods, reason = "the one room that sleeps")]
    pub fn sleep(self, duration: Duration) -> Sleep {
        tokio::time::sleep(duration)
    }
}
