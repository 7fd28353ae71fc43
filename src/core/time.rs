//! Readings of the clocks, as values. `crate::clock` is the one place that takes them.

use std::ops::Add;
use std::time::Duration;

pub use jiff::Timestamp;

/// A reading of the monotonic clock: time since the process first looked at it. Schedules follow this one, so a wall clock
/// that jumps moves no poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// The reading `elapsed` after the process's first look at the clock.
    #[must_use]
    pub const fn at(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How long after the origin this reading was taken.
    #[must_use]
    pub const fn elapsed(self) -> Duration {
        self.0
    }

    /// How long after `earlier` this reading was taken; zero where it was not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Monotonic {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

/// Characters of a duration. It also keeps out those near 2^64 seconds, on which humantime's sum overflows in a panic.
const DURATION_LENGTH_MAX: usize = 20;

/// A text that is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this must be a duration such as \"30s\", \"5m\", \"12h\" or \"7d\"")]
pub struct InvalidDuration;

/// A duration as people write one: `90s`, `5m`, `2h 30m`, `7d`.
///
/// # Errors
/// It is none, or it is longer than anybody writes one.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let duration = if text.len() <= DURATION_LENGTH_MAX { humantime::parse_duration(text).ok() } else { None };
    duration.ok_or(InvalidDuration)
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For schedules.
    pub monotonic: Monotonic,
    /// For people and for the record. It may jump.
    pub wall: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_as_people_write_it_up_to_the_length_that_anybody_writes() {
        let seconds = Duration::from_secs;
        assert_eq!(parse_duration("90s"), Ok(seconds(90)));
        assert_eq!(parse_duration("2h 30m"), Ok(seconds(9_000)));
        assert_eq!(parse_duration("00000000000000000007d"), Err(InvalidDuration), "21 characters");
        assert_eq!(parse_duration("0000000000000000007d"), Ok(seconds(7 * 86_400)), "20 characters");
        assert_eq!(parse_duration("soon"), Err(InvalidDuration));
    }
}
