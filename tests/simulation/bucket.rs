//! A token bucket. The simulated service enforces its quota with one; the checks hold each daemon to its configured quota with
//! another.

use std::collections::BTreeMap;
use std::time::Duration;

use refwatch::core::failure::Operation;

/// Tolerance in tokens: clocks count whole milliseconds.
const ROUNDING: f64 = 0.01;

#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: f64,
    filled_at: Duration,
}

/// One bucket for each operation.
pub(crate) type Buckets = BTreeMap<Operation, Bucket>;

/// Full buckets at `now`.
pub(crate) fn full_buckets(tokens: f64, now: Duration) -> Buckets {
    Operation::all().map(|operation| (operation, Bucket { tokens, filled_at: now })).collect()
}

impl Bucket {
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
