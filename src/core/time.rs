//! Clock readings as values, and the parsers of durations. `crate::clock` takes the readings.

use std::ops::Add;
use std::time::Duration;

pub use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

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

/// The length of a date, such as 2026-01-30. jiff would also read a time after it, and ignore the time.
const DATE_BYTES: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this must be a duration ago (7d, 12h 30min), a date (2026-01-30, in UTC) or an RFC 3339 time (2026-01-30T12:00:00Z)"
)]
pub struct InvalidTime;

/// Parses a duration before `now`, a date (its start in UTC) or an RFC 3339 time.
///
/// # Errors
/// The text is none of the three.
pub fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, InvalidTime> {
    if let Ok(ago) = parse_duration(text) {
        return Ok(now.checked_sub(ago).unwrap_or(Timestamp::MIN));
    }
    if let (DATE_BYTES, Ok(date)) = (text.len(), text.parse::<Date>()) {
        return TimeZone::UTC.to_timestamp(date.into()).map_err(|_| InvalidTime);
    }
    text.parse().map_err(|_| InvalidTime)
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

    #[test]
    fn a_time_is_a_duration_ago_a_date_or_an_rfc_3339_time() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().expect("a time");
        let time = |text: &str| parse_time(text, now).map(|time| time.to_string());
        assert_eq!(time("7d").as_deref(), Ok("2026-01-24T12:00:00Z"));
        assert_eq!(time("1h 30min").as_deref(), Ok("2026-01-31T10:30:00Z"));
        assert_eq!(time("2026-01-30").as_deref(), Ok("2026-01-30T00:00:00Z"));
        assert_eq!(time("2026-01-30T01:00:00+01:00").as_deref(), Ok("2026-01-30T00:00:00Z"));
        assert_eq!(time("1000000 years"), Ok(Timestamp::MIN.to_string()));
        for wrong in ["", "7", "yesterday", "2026-02-30", "2026-01", "2026-01-30T12", "2026-01-30 12:00"] {
            assert_eq!(time(wrong), Err(InvalidTime), "{wrong}");
        }
    }
}
