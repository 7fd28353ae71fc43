//! The quota: when the next request of one target and operation may go out, and how fast they may follow one another.
//!
//! The rate is found, not guessed: a throttle cuts it, success grows it again up to what is configured (additive increase,
//! multiplicative decrease, as TCP shares a link). So a quota that is lower than configured, or that others use, is shared
//! with them instead of fought over.

use std::time::Duration;

use super::time::Monotonic;

/// What a throttle leaves of the rate.
const CUT: f64 = 0.7;

/// How much the rate grows for each second of requests at that rate, as a part of the configured one. From a cut it takes a
/// good minute back, so that of a quota far below the configured rate a few requests in a hundred are lost to finding it.
const GROWTH_PER_SECOND: f64 = 0.004;

/// The least rate, as a part of the configured one: below it the way back would take longer than any throttling lasts.
const LEAST: f64 = 0.02;

/// One token: requests leave evenly spaced, and the quota's own burst is left to the account's other callers.
const BURST: f64 = 1.0;

/// What the bucket takes in beyond that, in seconds: whoever waits for a turn wakes some milliseconds late, and they would be lost.
const WAKES_LATE: f64 = 0.005;

/// Arithmetic on fractions of a token may fall short of a whole one by this much; without it a caller could be told to wait
/// less than the clock can tell.
const ROUNDING: f64 = 1e-6;

/// The pace of one operation on one target: a token bucket whose rate follows what the service allows.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// The configured rate: never exceeded.
    limit: f64,
    rate: f64,
    tokens: f64,
    filled_at: Option<Monotonic>,
    cut_at: Option<Monotonic>,
}

impl Pacer {
    /// A pacer that starts at `limit`, in requests per second. It must be over zero; the configuration sees to that.
    #[must_use]
    pub fn new(limit: f64) -> Self {
        Self { limit, rate: limit, tokens: BURST, filled_at: None, cut_at: None }
    }

    /// The configured rate, in requests per second.
    #[must_use]
    pub fn limit(&self) -> f64 {
        self.limit
    }

    /// The rate that is allowed at present, in requests per second.
    #[must_use]
    pub fn requests_per_second(&self) -> f64 {
        self.rate
    }

    /// Takes the turn to send one request, or says how long it is until there is one.
    ///
    /// # Errors
    /// The time to wait before asking again.
    pub fn take(&mut self, now: Monotonic) -> Result<(), Duration> {
        let idle = self.filled_at.map_or(Duration::ZERO, |filled| now.since(filled));
        self.tokens = (self.tokens + idle.as_secs_f64() * self.rate).min(BURST + WAKES_LATE * self.rate);
        self.filled_at = Some(now);
        if self.tokens >= 1.0 - ROUNDING {
            self.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - self.tokens) / self.rate))
        }
    }

    /// A request was answered otherwise than by a throttle.
    pub fn answered(&mut self) {
        self.rate = (self.rate + self.limit * GROWTH_PER_SECOND / self.rate).min(self.limit);
    }

    /// A request that went out at `sent` was throttled. One that went out before the last cut says nothing of the rate since.
    pub fn throttled(&mut self, sent: Monotonic, now: Monotonic) {
        if self.cut_at.is_none_or(|cut| sent >= cut) {
            self.rate = (self.rate * CUT).max(self.limit * LEAST);
            self.cut_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests;
