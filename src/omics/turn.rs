//! Turns under the quota: whoever wants to send waits here, first come, first served.

use std::sync::{Mutex, PoisonError};

use tokio::sync;

use crate::clock::Clock;
use crate::core::outcome::{FailureReason, PollFailure};
use crate::core::pacer::Pacer;
use crate::core::time::{Monotonic, Now};
use crate::instruments::OperationInstruments;

/// The turns of one operation on one target.
#[derive(Debug)]
pub(super) struct Turns {
    /// The lock is fair and is held through the wait: it is the queue, and the longest-waiting job is its head.
    queue: sync::Mutex<()>,
    /// Apart from the queue, so that what an answer says of the rate counts at once.
    pacer: Mutex<Pacer>,
    clock: Clock,
    instruments: OperationInstruments,
}

impl Turns {
    pub(super) fn new(requests_per_second: f64, clock: Clock, instruments: OperationInstruments) -> Self {
        instruments.quota_allowed.set(requests_per_second);
        Self { queue: sync::Mutex::default(), pacer: Mutex::new(Pacer::new(requests_per_second)), clock, instruments }
    }

    /// Returns when it is the caller's turn. Whoever stops waiting leaves the queue and takes nothing.
    pub(super) async fn take(&self) {
        let due = self.clock.now().monotonic;
        let head = self.queue.lock().await;
        while let Err(wait) = self.with_pacer(|pacer| pacer.take(self.clock.now().monotonic)) {
            self.clock.sleep(wait).await;
        }
        drop(head);
        self.instruments.quota_wait.observe(self.clock.now().monotonic.since(due).as_secs_f64());
    }

    /// Takes in how the request that went out at `sent` ended: counts it, and lets the pacer learn from it.
    pub(super) fn request_ended(&self, sent: Monotonic, now: Now, failure: Option<&PollFailure>) {
        let reason = failure.map(|failure| failure.reason);
        self.instruments.request_ended(now.monotonic.since(sent), reason);
        let allowed = self.with_pacer(|pacer| {
            match reason {
                Some(FailureReason::Throttled) => pacer.throttled(sent, now.monotonic),
                // No answer says nothing of the quota.
                Some(FailureReason::Timeout | FailureReason::Connect) => {}
                Some(
                    FailureReason::AccessDenied
                    | FailureReason::NotFound
                    | FailureReason::Validation
                    | FailureReason::Internal
                    | FailureReason::Protocol
                    | FailureReason::Credentials
                    | FailureReason::Other,
                )
                | None => pacer.answered(),
            }
            pacer.requests_per_second()
        });
        self.instruments.quota_allowed.set(allowed);
    }

    fn with_pacer<T>(&self, use_it: impl FnOnce(&mut Pacer) -> T) -> T {
        use_it(&mut self.pacer.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
