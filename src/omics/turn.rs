//! Turns under the quota: whoever wants to send waits here, first come, first served.

use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::core::pacer::TokenBucket;
use crate::instruments::OperationInstruments;

/// One request at a time leaves the bucket: evenly spaced requests leave the rest of the account's burst to others.
const BURST: f64 = 1.0;

/// The turns of one operation on one target.
#[derive(Debug)]
pub(super) struct Turns {
    /// The lock is fair and is held through the wait: it is the queue, and the longest-waiting job is its head.
    bucket: Mutex<TokenBucket>,
    clock: Clock,
}

impl Turns {
    pub(super) fn new(requests_per_second: f64, clock: Clock, instruments: &OperationInstruments) -> Self {
        instruments.quota_allowed.set(requests_per_second);
        Self { bucket: Mutex::new(TokenBucket::new(requests_per_second, BURST)), clock }
    }

    /// Returns when it is the caller's turn. Whoever stops waiting leaves the queue and takes nothing.
    pub(super) async fn take(&self, instruments: &OperationInstruments) {
        let due = self.clock.now().monotonic;
        let mut bucket = self.bucket.lock().await;
        while let Err(wait) = bucket.take(self.clock.now().monotonic) {
            self.clock.sleep(wait).await;
        }
        instruments.quota_wait.observe(self.clock.now().monotonic.since(due).as_secs_f64());
    }
}
