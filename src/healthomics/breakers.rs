//! The circuit breakers of one target: requests wait here while theirs is open.
//!
//! The rules are in `core::breaker`. This module feeds them with the outcome of every request, makes callers wait, logs each change
//! and publishes the target's health.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tracing::{info, warn};

use crate::clock::Clock;
use crate::core::backoff::BackoffPolicy;
use crate::core::breaker::{BreakerEvent, BreakerKey, TargetBreakers};
use crate::core::failure::{Operation, PollFailure};
use crate::core::job::ReferenceStoreId;
use crate::core::time::Monotonic;

#[derive(Debug)]
pub(super) struct Breakers {
    target: Arc<str>,
    clock: Clock,
    state: Mutex<State>,
    /// Notified when any breaker closes.
    closed: Notify,
    /// See [`super::Target::health`].
    pub(super) health: watch::Sender<Option<String>>,
}

#[derive(Debug)]
struct State {
    breakers: TargetBreakers,
    /// The queue for the one probe of each breaker that has been open.
    probes: BTreeMap<BreakerKey, Arc<Semaphore>>,
}

/// A request's way past one breaker. A probe holds its permit until the response.
#[derive(Debug)]
pub(super) struct Pass {
    key: BreakerKey,
    probe: Option<OwnedSemaphorePermit>,
}

impl Breakers {
    pub(super) fn new(target: Arc<str>, backoff: BackoffPolicy, clock: Clock) -> Self {
        let state = Mutex::new(State { breakers: TargetBreakers::new(backoff), probes: BTreeMap::new() });
        Self { target, clock, state, closed: Notify::new(), health: watch::Sender::new(None) }
    }

    /// Waits until both breakers are closed, or until the caller becomes the probe of an open one.
    pub(super) async fn pass(&self, operation: Operation, store: &ReferenceStoreId) -> [Pass; 2] {
        let store = self.pass_one(BreakerKey::Store(operation, store.clone())).await;
        [store, self.pass_one(BreakerKey::Target).await]
    }

    async fn pass_one(&self, key: BreakerKey) -> Pass {
        let new = || Arc::new(Semaphore::new(1));
        let mut probe = None;
        loop {
            let closed = self.closed.notified();
            let Some(probe_at) = self.probe_at(&key) else { return Pass { key, probe: None } };
            if probe.is_none() {
                let queue = self.with(|state| Arc::clone(state.probes.entry(key.clone()).or_insert_with(new)));
                // An error means that the semaphore is closed, and it never is.
                probe = queue.acquire_owned().await.ok();
                continue;
            }
            if self.clock.now().monotonic >= probe_at {
                return Pass { key, probe };
            }
            tokio::select! {
                biased;
                () = closed => {}
                () = self.clock.sleep_until(probe_at) => {}
            }
        }
    }

    /// False once a breaker has opened for which this request is not the probe.
    pub(super) fn allow(&self, passes: &[Pass]) -> bool {
        passes.iter().all(|pass| pass.probe.is_some() || self.probe_at(&pass.key).is_none())
    }

    /// Takes in how the request that was sent at `sent` ended.
    pub(super) fn request_ended(
        &self,
        operation: Operation,
        store: &ReferenceStoreId,
        failure: Option<&PollFailure>,
        sent: Monotonic,
        now: Monotonic,
    ) {
        let (events, down) = self.with(|state| {
            let events = state.breakers.request_ended(operation, store, failure, sent, now);
            (events, state.breakers.down_reason().map(str::to_owned))
        });
        self.health.send_if_modified(|health| std::mem::replace(health, down.clone()) != down);
        if events.iter().any(|event| !event.is_open) {
            self.closed.notify_waiters();
        }
        for event in events {
            self.log(&event, failure.map_or("", |failure| &failure.message));
        }
    }

    fn log(&self, BreakerEvent { key, is_open, unreachable }: &BreakerEvent, message: &str) {
        let target = &self.target;
        match (key, is_open, unreachable) {
            (BreakerKey::Target, true, true) => warn!(event = "target_unreachable", %target,
                "every request fails; probing with one request at a time: {message}"),
            (BreakerKey::Target, true, false) => warn!(event = "credentials_rejected", %target,
                "credentials rejected; probing with one request at a time: {message}"),
            (BreakerKey::Target, false, true) => info!(event = "target_reachable", %target, "requests succeed again"),
            (BreakerKey::Target, false, false) => {
                info!(event = "credentials_accepted", %target, "credentials accepted again");
            }
            (BreakerKey::Store(Operation::GetReferenceImportJob, store), true, _) => {
                warn!(event = "access_denied_to_store", %target, store_id = %store,
                    "access denied to every job of this store; probing with one request at a time: {message}");
            }
            (BreakerKey::Store(Operation::GetReferenceImportJob, store), false, _) => info!(event = "access_restored",
                %target, store_id = %store, "access to the jobs of this store is allowed again"),
            // The store's lister logs what follows from a denied listing.
            (BreakerKey::Store(Operation::ListReferenceImportJobs, _), ..) => {}
        }
    }

    /// Waits until a breaker in the way of polls of `store` closes after `sent`.
    pub(super) async fn breaker_closed_after(&self, store: &ReferenceStoreId, sent: Monotonic) {
        loop {
            let closed = self.closed.notified();
            if self.with(|state| state.breakers.breaker_closed_after(store, sent)) {
                return;
            }
            closed.await;
        }
    }

    fn probe_at(&self, key: &BreakerKey) -> Option<Monotonic> {
        self.with(|state| Some(state.breakers.state_if_open(key)?.probe_at))
    }

    // No panic can leave the state half changed.
    fn with<T>(&self, use_it: impl FnOnce(&mut State) -> T) -> T {
        use_it(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
