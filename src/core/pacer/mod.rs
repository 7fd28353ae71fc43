//! The pacer: when the next request of one operation on one target may go out.
//!
//! It is a token bucket whose rate follows the service: a throttle multiplies the rate by 0.7, and success raises it again up to
//! the configured rate (additive increase, multiplicative decrease, as TCP shares a link). So a quota that is lower than
//! configured, or that other callers use, is shared with them. It reads no clock and does not wait.

use std::time::Duration;

use super::time::Monotonic;

/// A throttle multiplies the rate by this.
const DECREASE_FACTOR: f64 = 0.7;

/// Growth for each second of requests at the current rate, as a fraction of the configured rate. After a throttle the rate recovers
/// in over a minute, so a quota far below the configured rate costs a few throttles in a hundred requests.
const GROWTH_PER_SECOND: f64 = 0.004;

/// The lowest rate, as a fraction of the configured rate. From a lower one, recovery would take longer than any throttling lasts.
const MIN_RATE: f64 = 0.02;

/// Requests leave at this fraction of the rate. A caller at exactly the quota is never throttled and leaves nothing: a second
/// caller, slowed to a whole multiple of the first one's period, is throttled every time. The headroom shifts their phases.
const HEADROOM: f64 = 0.98;

/// One token: requests leave evenly spaced, and the quota's own burst is left to the account's other callers.
const BURST: f64 = 1.0;

/// Seconds of tokens that the bucket holds beyond that, because a caller wakes some milliseconds late.
const WAKE_LATENCY: f64 = 0.005;

/// Fractions of a token may add up to slightly less than one. Without this, a caller could be asked to wait less than the clock can
/// measure.
const ROUNDING: f64 = 1e-6;

#[derive(Clone, Debug)]
pub struct Pacer {
    /// The configured rate, which is never exceeded.
    limit: f64,
    rate: f64,
    tokens: f64,
    filled_at: Option<Monotonic>,
    decreased_at: Option<Monotonic>,
}

impl Pacer {
    /// A pacer that starts at `limit`, in requests per second. The configuration guarantees that it is above zero.
    #[must_use]
    pub fn new(limit: f64) -> Self {
        Self { limit, rate: limit, tokens: BURST, filled_at: None, decreased_at: None }
    }

    /// The configured rate, in requests per second.
    #[must_use]
    pub fn configured_rate(&self) -> f64 {
        self.limit
    }

    /// The current rate, in requests per second.
    #[must_use]
    pub fn current_rate(&self) -> f64 {
        self.rate
    }

    /// Takes a token for one request.
    ///
    /// # Errors
    /// The time until there is a token.
    pub fn take(&mut self, now: Monotonic) -> Result<(), Duration> {
        let pace = self.rate * HEADROOM;
        let idle = self.filled_at.map_or(Duration::ZERO, |filled| now.since(filled));
        self.tokens = (self.tokens + idle.as_secs_f64() * pace).min(BURST + WAKE_LATENCY * pace);
        self.filled_at = Some(now);
        if self.tokens >= 1.0 - ROUNDING {
            self.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - self.tokens) / pace))
        }
    }

    /// Raises the rate after a request that was within the quota.
    pub fn within_quota(&mut self) {
        self.rate = (self.rate + self.limit * GROWTH_PER_SECOND / self.rate).min(self.limit);
    }

    /// A request that was sent at `sent` was throttled. One that was sent before the last decrease does not count again.
    pub fn throttled(&mut self, sent: Monotonic, now: Monotonic) {
        if self.decreased_at.is_none_or(|decreased| sent >= decreased) {
            self.rate = (self.rate * DECREASE_FACTOR).max(self.limit * MIN_RATE);
            self.decreased_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests;
