//! Clock readings as values, and the parsers of durations. `crate::clock` takes the readings.

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

/// Parses a `Retry-After` header: seconds, or an HTTP date. `None` for other text and for a date before `now`.
#[must_use]
pub fn parse_retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(header).ok()?.timestamp();
    Duration::try_from(date.duration_since(now)).ok()
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
    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let now: Timestamp = "1994-11-06T08:49:37Z".parse().expect("a time");
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (header, expected) in [
            ("0", seconds(0)),
            (" 120 ", seconds(120)),
            ("18446744073709551615", seconds(u64::MAX)),
            ("Sun, 06 Nov 1994 08:51:37 GMT", seconds(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", seconds(0)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
        ] {
            assert_eq!(parse_retry_after(header, now), expected, "{header}");
        }
    }
}
