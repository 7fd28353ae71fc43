//! The scheduler: decides which request of one operation on one target is sent next, and when. It sends no requests.
//!
//! A hinted request (see [`Priority`]) waits for at most one routine request. Two tokio mutexes serve as queues, because they are locked in
//! FIFO order. A routine request locks `routine_turn`, then `send_turn`. A hinted request locks only `send_turn`. So at most one routine
//! request waits for or holds `send_turn`. The request that holds it is next: it waits for a free place in flight and the quota. A request
//! releases its locks once it has both, or gives up.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{self, OwnedSemaphorePermit, Semaphore};

use crate::clock::Clock;
use crate::core::failure::{FailureReason, QuotaEvidence};
use crate::core::pacer::Pacer;
use crate::core::time::Monotonic;
use crate::instruments::OperationInstruments;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// A hint: a listing shows that the job has changed. At most one waiting routine request is sent before this request.
    Hinted,
    Routine,
}

/// The maximum of requests in flight, of one operation on one target. Each has a connection and about 40 KiB of memory. At AWS's
/// default quota of 5 requests per second, 100 are in flight if all hang until the default timeout of 20 seconds.
const IN_FLIGHT_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Scheduler {
    routine_turn: sync::Mutex<()>,
    send_turn: sync::Mutex<()>,
    in_flight: Arc<Semaphore>,
    pacer: Mutex<Pacer>,
    clock: Clock,
    instruments: OperationInstruments,
}

impl Scheduler {
    pub(super) fn new(configured_rate: f64, clock: Clock, instruments: OperationInstruments) -> Self {
        let pacer = Pacer::new(configured_rate);
        instruments.quota_allowed.set(pacer.current_rate());
        instruments.quota_configured.set(configured_rate);
        Self {
            routine_turn: sync::Mutex::default(),
            send_turn: sync::Mutex::default(),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            pacer: Mutex::new(pacer),
            clock,
            instruments,
        }
    }

    /// Waits for an in-flight permit and the quota. The caller holds the permit until the response. `passes_are_valid` is
    /// called before each attempt to use the quota. If it returns false, the request leaves the queue and the result is `None`. Cancel
    /// safe: a cancelled caller leaves the queue and uses no quota.
    pub(super) async fn acquire(
        &self,
        priority: Priority,
        passes_are_valid: impl Fn() -> bool,
    ) -> Option<OwnedSemaphorePermit> {
        let called_at = self.clock.now().monotonic;
        let routine_guard = if priority == Priority::Routine { Some(self.routine_turn.lock().await) } else { None };
        let send_guard = self.send_turn.lock().await;
        let Ok(in_flight) = Arc::clone(&self.in_flight).acquire_owned().await else { unreachable!("never closed") };
        loop {
            if !passes_are_valid() {
                return None;
            }
            // `Ok`: the request has taken its part of the quota. `Err`: the time until it can.
            let Err(wait) = self.with_pacer(|pacer| pacer.take(self.clock.now().monotonic)) else { break };
            self.clock.sleep(wait).await;
        }
        drop((send_guard, routine_guard));
        // Includes the waits for both turns and for a place in flight.
        self.instruments.quota_wait.observe(self.clock.now().monotonic.since(called_at).as_secs_f64());
        Some(in_flight)
    }

    /// Counts a request that was sent at `sent_at`, and adapts the rate.
    pub(super) fn request_ended(&self, failure: Option<FailureReason>, sent_at: Monotonic, now: Monotonic) {
        self.instruments.request_ended(sent_at, now, failure);
        self.with_pacer(|pacer| {
            match failure.map_or(QuotaEvidence::WithinQuota, |reason| reason.info().quota) {
                QuotaEvidence::Exceeded => pacer.throttled(sent_at, now),
                QuotaEvidence::WithinQuota => pacer.within_quota(),
                QuotaEvidence::Inconclusive => {}
            }
            self.instruments.quota_allowed.set(pacer.current_rate());
        });
    }

    // After a panic under the lock, the target goes on with the pacer as it is.
    fn with_pacer<T>(&self, f: impl FnOnce(&mut Pacer) -> T) -> T {
        f(&mut self.pacer.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;
    use crate::core::failure::Operation;
    use crate::core::kind::JobKind;
    use crate::instruments::Instruments;

    fn scheduler() -> Scheduler {
        let instruments = Instruments::new().expect("metrics").operation("a", Operation::Get(JobKind::ReadSetImport));
        Scheduler::new(1.0, Clock::system(), instruments)
    }

    #[tokio::test(start_paused = true)]
    async fn a_hinted_request_waits_for_at_most_one_routine_request() {
        let scheduler = Arc::new(scheduler());
        let (order_sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut requests = JoinSet::new();
        let (routine, hinted) = (Priority::Routine, Priority::Hinted);
        for (nth, priority) in [routine, routine, routine, routine, hinted, hinted].into_iter().enumerate() {
            let (scheduler, order_sender) = (Arc::clone(&scheduler), order_sender.clone());
            requests.spawn(async move {
                assert!(scheduler.acquire(priority, || true).await.is_some());
                order_sender.send(nth).expect("an open channel");
            });
            // This request enters its queue before the next request starts.
            tokio::task::yield_now().await;
        }
        requests.join_all().await;
        let order: Vec<usize> = std::iter::from_fn(|| order.try_recv().ok()).collect();
        // Request 1 had locked `send_turn` before the hinted requests 4 and 5 came.
        assert_eq!(order, [0, 1, 4, 5, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_valid_passes_leaves_the_queue_and_uses_no_quota() {
        let scheduler = scheduler();
        assert!(scheduler.acquire(Priority::Routine, || true).await.is_some());
        assert!(scheduler.acquire(Priority::Routine, || false).await.is_none());
        let before = scheduler.clock.now().monotonic;
        // It would wait for 2 s if the second request had used quota.
        assert!(scheduler.acquire(Priority::Routine, || true).await.is_some());
        assert!(scheduler.clock.now().monotonic.since(before).as_secs_f64() < 1.1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_while_the_maximum_is_in_flight() {
        let scheduler = scheduler();
        let mut in_flight = Vec::new();
        for _ in 0..IN_FLIGHT_MAX {
            in_flight.push(scheduler.acquire(Priority::Hinted, || true).await.expect("a permit"));
        }
        let mut next = std::pin::pin!(scheduler.acquire(Priority::Hinted, || true));
        let an_hour = std::time::Duration::from_hours(1);
        tokio::time::timeout(an_hour, &mut next).await.expect_err("no permit");
        drop(in_flight.pop());
        assert!(next.await.is_some());
    }
}
