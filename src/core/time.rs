//! Clock readings as values, and the parser of durations. `crate::clock` takes the readings.

use std::ops::Add;
use std::time::Duration;

pub use jiff::Timestamp;

/// A reading of the monotonic clock: the time since the clock was created. Schedules use it, so a jump of the wall clock moves
/// no poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(Duration);

impl Monotonic {
    #[must_use]
    pub const fn at(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    #[must_use]
    pub const fn elapsed(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to this reading, or zero if `earlier` is later.
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

/// humantime panics if a carry raises the sum to 2^64 s. A text with that sum is longer.
const DURATION_BYTES_MAX: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this must be a duration such as \"30s\", \"5m\", \"12h\" or \"7d\"")]
pub struct InvalidDuration;

/// Parses a duration such as `90s`, `5m`, `2h 30m` or `7d`.
///
/// # Errors
/// The text is no duration, or longer than 20 bytes.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let duration = if text.len() <= DURATION_BYTES_MAX { humantime::parse_duration(text).ok() } else { None };
    duration.ok_or(InvalidDuration)
}

/// Readings of both clocks, taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For schedules.
    pub monotonic: Monotonic,
    /// For people and for the database. The wall clock may jump.
    pub wall: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_notations_of_durations_are_parsed_up_to_a_maximum_length() {
        let seconds = Duration::from_secs;
        assert_eq!(parse_duration("90s"), Ok(seconds(90)));
        assert_eq!(parse_duration("2h 30m"), Ok(seconds(9_000)));
        assert_eq!(parse_duration("00000000000000000007d"), Err(InvalidDuration), "21 bytes");
        assert_eq!(parse_duration("0000000000000000007d"), Ok(seconds(7 * 86_400)), "20 bytes");
        assert_eq!(parse_duration("soon"), Err(InvalidDuration));
    }
}
