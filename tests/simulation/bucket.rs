//! A token bucket. The simulated service enforces its quota with one; the checks hold each daemon to its configured quota with
//! another.

use std::time::Duration;

/// Tolerance in tokens: clocks count whole milliseconds.
const ROUNDING: f64 = 0.01;

#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: f64,
    pub filled_at: Duration,
}

impl Bucket {
    pub(crate) fn full(tokens: f64) -> Self {
        Self { tokens, filled_at: Duration::ZERO }
    }

    /// Takes one token if there is one. The bucket `holds` at most so many and refills at `rate` per second.
    pub(crate) fn take(&mut self, now: Duration, rate: f64, holds: f64) -> bool {
        let filled = now.saturating_sub(self.filled_at).as_secs_f64() * rate;
        self.tokens = (self.tokens + filled).min(holds);
        self.filled_at = now;
        let taken = self.tokens >= 1.0 - ROUNDING;
        self.tokens -= f64::from(u8::from(taken));
        taken
    }
}
