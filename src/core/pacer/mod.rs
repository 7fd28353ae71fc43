//! The pacer: when the next request of one operation on one target may be sent.
//!
//! It is a token bucket with a variable rate. A throttle multiplies the rate by 0.7. Requests within the quota raise it again, up
//! to the configured rate. TCP shares a link in the same way (additive increase, multiplicative decrease). The rate thus follows a
//! quota that is lower than configured, and callers with the same quota get similar shares. The pacer reads no clock and does not
//! wait.

use std::time::Duration;

use super::time::Monotonic;

/// A throttle multiplies the rate by this.
const DECREASE_FACTOR: f64 = 0.7;

/// Growth of the rate in a second of continuous requests, as a fraction of the configured rate. Recovery from one throttle takes
/// 77 s at most. At a quota far below the configured rate, a few requests in a hundred are throttled.
const GROWTH_PER_SECOND: f64 = 0.004;

/// The lowest rate, as a fraction of the configured rate. Only responses raise the rate, so recovery from a lower rate would start
/// too late.
const MIN_RATE: f64 = 0.02;

/// Requests are sent at this fraction of the rate. At exactly 100 %, two callers can stay in lockstep, and one of them is throttled
/// every time. 98 % makes them drift apart.
const HEADROOM: f64 = 0.98;

/// The bucket size in tokens. One token spaces requests evenly, and leaves the quota's own burst to other callers.
const BURST: f64 = 1.0;

/// The extra bucket size, in seconds at the current pace. It makes up for callers that wake some milliseconds late.
const WAKE_LATENCY: f64 = 0.005;

/// Tolerance in tokens: fractions may add up to slightly less than one. Without it, the returned wait could be too short for the
/// clock.
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

    /// The current rate, in requests per second. Requests are sent at 98 % of it.
    #[must_use]
    pub fn current_rate(&self) -> f64 {
        self.rate
    }

    /// Takes a token for one request.
    ///
    /// # Errors
    /// If there is no token: the time until there is one.
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

    /// Lowers the rate after a throttle. A throttled request that was sent before the last decrease has no effect.
    pub fn throttled(&mut self, sent_at: Monotonic, now: Monotonic) {
        if self.decreased_at.is_none_or(|decreased| sent_at >= decreased) {
            self.rate = (self.rate * DECREASE_FACTOR).max(self.limit * MIN_RATE);
            self.decreased_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests;
