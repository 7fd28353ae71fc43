//! The delivery policy of notifications: what a sink's response means, and when an event is sent again.
//!
//! A temporary failure pauses the sink, because other events would fail too. Any other failure concerns its event only: that event
//! is retried by a schedule and then counted as failed. This module sends nothing and reads no clock.

use std::time::Duration;

use super::backoff::BackoffPolicy;

/// The result of a request to a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    Delivered,
    /// The sink is paused. One request at a time is sent until one is delivered or rejected.
    Unavailable,
    /// There was no response. The sink is paused, as for `Unavailable`.
    NoResponse,
    /// The sink is disabled until its configuration changes.
    Gone,
    /// This event is retried, and the later events of its job wait for it. Events of other jobs are sent.
    Rejected,
}

impl AttemptResult {
    pub const ALL: [Self; 5] = [Self::Delivered, Self::Unavailable, Self::NoResponse, Self::Gone, Self::Rejected];

    /// The result of a response with this HTTP status. Redirects are not followed, so they are rejections.
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Delivered,
            408 | 425 | 429 | 500..=599 => Self::Unavailable,
            410 => Self::Gone,
            _ => Self::Rejected,
        }
    }

    /// The value of the metric label `result`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Unavailable => "unavailable",
            Self::NoResponse => "no_response",
            Self::Gone => "gone",
            Self::Rejected => "rejected",
        }
    }
}

/// The backoff of a paused sink.
pub const PAUSE: BackoffPolicy = BackoffPolicy { initial: Duration::from_secs(5), max: Duration::from_hours(1) };

/// The longest `Retry-After` of a sink that is honoured.
pub const SINK_RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// The schedule of Standard Webhooks: the delay after each rejection of one event. In total 3 days and 3.6 hours.
const RETRY_DELAYS: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];

/// The delay after the nth rejection of one event, from 1. `None`: the event has failed permanently.
#[must_use]
pub fn retry_delay(rejections: u32) -> Option<Duration> {
    let nth = usize::try_from(rejections.saturating_sub(1)).ok()?;
    RETRY_DELAYS.get(nth).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_of_status_has_its_result() {
        for (statuses, expected) in [
            (&[200, 201, 202, 204, 299][..], AttemptResult::Delivered),
            (&[408, 425, 429, 500, 502, 503, 504, 599], AttemptResult::Unavailable),
            (&[410], AttemptResult::Gone),
            (
                &[100, 199, 300, 301, 304, 307, 308, 400, 401, 403, 404, 405, 409, 411, 422, 451, 499, 600],
                AttemptResult::Rejected,
            ),
        ] {
            for status in statuses {
                assert_eq!(AttemptResult::of_status(*status), expected, "{status}");
            }
        }
    }

    #[test]
    fn each_result_has_its_label() {
        let labels = AttemptResult::ALL.map(AttemptResult::label);
        assert_eq!(labels, ["delivered", "unavailable", "no_response", "gone", "rejected"]);
    }

    #[test]
    fn an_event_is_retried_over_three_days() {
        let delays: Vec<u64> = (1..).map_while(retry_delay).map(|delay| delay.as_secs()).collect();
        assert_eq!(delays, [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]);
        let days = delays.iter().sum::<u64>() / 86_400;
        assert_eq!((days, retry_delay(u32::MAX)), (3, None));
    }

    #[test]
    fn a_paused_sink_is_probed_after_5_seconds_to_1_hour() {
        assert_eq!((PAUSE.initial.as_secs(), PAUSE.max.as_secs()), (5, 3_600));
    }
}
