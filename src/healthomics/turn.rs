//! Turns under the quota: whoever wants to send waits here, urgent requests first, and else first come, first served.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{self, OwnedSemaphorePermit, Semaphore};

use crate::clock::Clock;
use crate::core::failure::FailureReason;
use crate::core::pacer::Pacer;
use crate::core::time::Monotonic;
use crate::instruments::OperationInstruments;

/// How soon a request has to go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// In its turn.
    Routine,
    /// Before what is routine, in the main: at an interval that somebody has set.
    Timed,
    /// Before all that is routine: something is known to have changed.
    Urgent,
}

/// Timed requests that stand at the door beside one routine request. Where both are too many, they get this many turns for its
/// one: intervals are kept for as long as nine tenths of the quota allow it, and nobody starves.
const TIMED_AT_THE_DOOR: usize = 9;

/// Requests in flight at a time, each with a connection and some 40 KiB. AWS's default quota comes to a hundred where every one of
/// them hangs until the default timeout; a higher quota gets by with these unless answers are slow.
const IN_FLIGHT_MAX: usize = 128;

/// The turns of one operation on one target. The locks are fair and are held through the wait, so each is a queue, and the
/// longest-waiting job is its head.
#[derive(Debug)]
pub(super) struct Turns {
    /// Where routine requests wait, so that one of them at most stands at the door.
    routine: Semaphore,
    /// Where timed ones wait, so that [`TIMED_AT_THE_DOOR`] of them at most stand at the door.
    timed: Semaphore,
    /// Where whoever is next waits for the pacer.
    door: sync::Mutex<()>,
    in_flight: Arc<Semaphore>,
    /// Apart from the queue, so that what an answer says of the rate counts at once.
    pacer: Mutex<Pacer>,
    clock: Clock,
    instruments: OperationInstruments,
}

impl Turns {
    pub(super) fn new(requests_per_second: f64, clock: Clock, instruments: OperationInstruments) -> Self {
        instruments.quota_allowed.set(requests_per_second);
        instruments.quota_configured.set(requests_per_second);
        Self {
            routine: Semaphore::new(1),
            timed: Semaphore::new(TIMED_AT_THE_DOOR),
            door: sync::Mutex::default(),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            pacer: Mutex::new(Pacer::new(requests_per_second)),
            clock,
            instruments,
        }
    }

    /// Returns when it is the caller's turn, with a place among the requests in flight, or with `None` as soon as that would not be
    /// `wanted` any more. Whoever stops waiting leaves the queue and takes nothing.
    pub(super) async fn take(&self, urgency: Urgency, wanted: impl Fn() -> bool) -> Option<OwnedSemaphorePermit> {
        let due = self.clock.now().monotonic;
        // An error means that the queue is closed, which none ever is.
        let head = match urgency {
            Urgency::Routine => self.routine.acquire().await.ok(),
            Urgency::Timed => self.timed.acquire().await.ok(),
            Urgency::Urgent => None,
        };
        let at_the_door = self.door.lock().await;
        let place = Arc::clone(&self.in_flight).acquire_owned().await.ok();
        loop {
            if !wanted() {
                return None;
            }
            let Err(wait) = self.with_pacer(|pacer| pacer.take(self.clock.now().monotonic)) else { break };
            self.clock.sleep(wait).await;
        }
        drop((at_the_door, head));
        self.instruments.quota_wait.observe(self.clock.now().monotonic.since(due).as_secs_f64());
        place
    }

    /// The configured rate, in requests per second.
    pub(super) fn limit(&self) -> f64 {
        self.with_pacer(|pacer| pacer.limit())
    }

    /// Takes in how the request that went out at `sent` ended: counts it, and lets the pacer learn from it.
    pub(super) fn request_ended(&self, sent: Monotonic, now: Monotonic, failure: Option<FailureReason>) {
        self.instruments.request_ended(now.since(sent), failure);
        let allowed = self.with_pacer(|pacer| {
            match failure {
                Some(FailureReason::Throttled) => pacer.throttled(sent, now),
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
    use std::iter;
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;
    use crate::core::failure::Operation;
    use crate::instruments::Instruments;

    fn turns() -> Turns {
        let instruments = Instruments::new().expect("metrics").operation("a", Operation::GetReferenceImportJob);
        Turns::new(1.0, Clock::system(), instruments)
    }

    /// The order in which requests that all came at once, in this order, had their turns.
    async fn order(urgencies: impl IntoIterator<Item = Urgency>) -> Vec<usize> {
        let turns = Arc::new(turns());
        let (sent, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut requests = JoinSet::new();
        for (nth, urgency) in urgencies.into_iter().enumerate() {
            let (turns, sent) = (Arc::clone(&turns), sent.clone());
            requests.spawn(async move {
                assert!(turns.take(urgency, || true).await.is_some());
                sent.send(nth).expect("it is read");
            });
            // Each asks before the next one does.
            tokio::task::yield_now().await;
        }
        requests.join_all().await;
        std::iter::from_fn(|| order.try_recv().ok()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn urgent_requests_go_first_and_the_others_in_the_order_they_came() {
        let (routine, urgent) = (Urgency::Routine, Urgency::Urgent);
        // The second one stood at the door before anything was urgent.
        assert_eq!(order([routine, routine, routine, urgent, urgent]).await, [0, 1, 3, 4, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn timed_requests_pass_routine_ones_which_starve_for_none_of_them() {
        let order = order(iter::repeat_n(Urgency::Routine, 50).chain(iter::repeat_n(Urgency::Timed, 50))).await;
        let place = |nth| order.iter().position(|&other| other == nth).expect("its turn");
        assert!((50..100).all(|timed| place(timed) < 60), "{order:?}");
        assert!((2..6).all(|routine| place(routine) < 60), "{order:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_requests_are_in_flight_as_there_are_places_and_the_next_goes_when_one_was_answered() {
        let turns = turns();
        let mut in_flight = Vec::new();
        for _ in 0..IN_FLIGHT_MAX {
            in_flight.push(turns.take(Urgency::Urgent, || true).await.expect("a place"));
        }
        let mut next = std::pin::pin!(turns.take(Urgency::Urgent, || true));
        let an_hour = std::time::Duration::from_hours(1);
        tokio::time::timeout(an_hour, &mut next).await.expect_err("no place");
        drop(in_flight.pop());
        assert!(next.await.is_some());
    }
}
