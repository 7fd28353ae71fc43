//! Turns under the quota: whoever wants to send waits here, urgent requests first, and else first come, first served.

use std::sync::{Mutex, PoisonError};

use tokio::sync;

use crate::clock::Clock;
use crate::core::outcome::{FailureReason, PollFailure};
use crate::core::pacer::Pacer;
use crate::core::time::{Monotonic, Now};
use crate::instruments::OperationInstruments;

/// How soon a request has to go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// In its turn.
    Routine,
    /// Before all that is routine: something is known to have changed.
    Urgent,
}

/// The turns of one operation on one target. The locks are fair and are held through the wait, so each is a queue, and the
/// longest-waiting job is its head.
#[derive(Debug)]
pub(super) struct Turns {
    /// Where routine requests wait, so that one of them at most stands at the door.
    queue: sync::Mutex<()>,
    /// Where whoever is next waits for the pacer.
    door: sync::Mutex<()>,
    /// Apart from the queue, so that what an answer says of the rate counts at once.
    pacer: Mutex<Pacer>,
    clock: Clock,
    instruments: OperationInstruments,
}

impl Turns {
    pub(super) fn new(requests_per_second: f64, clock: Clock, instruments: OperationInstruments) -> Self {
        instruments.quota_allowed.set(requests_per_second);
        Self {
            queue: sync::Mutex::default(),
            door: sync::Mutex::default(),
            pacer: Mutex::new(Pacer::new(requests_per_second)),
            clock,
            instruments,
        }
    }

    /// Returns when it is the caller's turn. Whoever stops waiting leaves the queue and takes nothing.
    pub(super) async fn take(&self, urgency: Urgency) {
        let due = self.clock.now().monotonic;
        let head = match urgency {
            Urgency::Routine => Some(self.queue.lock().await),
            Urgency::Urgent => None,
        };
        let at_the_door = self.door.lock().await;
        while let Err(wait) = self.with_pacer(|pacer| pacer.take(self.clock.now().monotonic)) {
            self.clock.sleep(wait).await;
        }
        drop((at_the_door, head));
        self.instruments.quota_wait.observe(self.clock.now().monotonic.since(due).as_secs_f64());
    }

    /// The configured rate, in requests per second.
    pub(super) fn limit(&self) -> f64 {
        self.with_pacer(|pacer| pacer.limit())
    }

    /// Takes in how the request that went out at `sent` ended: counts it, and lets the pacer learn from it.
    pub(super) fn request_ended(&self, sent: Monotonic, now: Now, failure: Option<&PollFailure>) {
        let reason = failure.map(|failure| failure.reason);
        self.instruments.request_ended(now.monotonic.since(sent), reason);
        let allowed = self.with_pacer(|pacer| {
            match reason {
                Some(FailureReason::Throttled) => pacer.throttled(sent, now.monotonic),
                // No answer says nothing of the quota, and without credentials nothing was asked.
                Some(FailureReason::Timeout | FailureReason::Connect | FailureReason::Credentials) => {}
                Some(
                    FailureReason::AccessDenied
                    | FailureReason::NotFound
                    | FailureReason::Validation
                    | FailureReason::Internal
                    | FailureReason::Protocol
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;
    use crate::core::outcome::Operation;
    use crate::instruments::Instruments;

    #[tokio::test(start_paused = true)]
    async fn urgent_requests_go_first_and_the_others_in_the_order_they_came() {
        let instruments = Instruments::new().expect("metrics").operation("a", Operation::GetReferenceImportJob);
        let turns = Arc::new(Turns::new(1.0, Clock::system(), instruments));
        let (sent, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut requests = JoinSet::new();
        for (name, urgency) in [
            ("first", Urgency::Routine),
            ("second", Urgency::Routine),
            ("third", Urgency::Routine),
            ("urgent", Urgency::Urgent),
            ("urgent too", Urgency::Urgent),
        ] {
            let (turns, sent) = (Arc::clone(&turns), sent.clone());
            requests.spawn(async move {
                turns.take(urgency).await;
                sent.send(name).expect("it is read");
            });
            // Each asks before the next one does.
            tokio::task::yield_now().await;
        }
        requests.join_all().await;
        let mut seen = Vec::new();
        while let Ok(name) = order.try_recv() {
            seen.push(name);
        }
        // The second one stood at the door before anything was urgent.
        assert_eq!(seen, ["first", "second", "urgent", "urgent too", "third"]);
    }
}
