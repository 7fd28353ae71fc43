//! The circuit breakers of one target. Requests wait here while a breaker is open. One probe at a time passes it.
//!
//! `core::breaker` has the rules. This module reports the outcome of every request to it, publishes why the target is down, and
//! logs when a breaker opens or closes. It does not log the breakers of `List` operations: the code that lists a store logs
//! failed listings.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tracing::{info, warn};

use crate::clock::Clock;
use crate::core::backoff::BackoffPolicy;
use crate::core::breaker::{BreakerEvent, BreakerKey, OpenCause, TargetBreakers};
use crate::core::failure::{Operation, RequestFailure};
use crate::core::job::StoreId;
use crate::core::kind::JobKind;
use crate::core::time::Monotonic;

#[derive(Debug)]
pub(super) struct Breakers {
    target_name: Arc<str>,
    clock: Clock,
    inner: Mutex<Inner>,
    /// Notified when any breaker closes.
    breaker_closed: Notify,
    /// See [`super::Target::subscribe_down_message`].
    pub(super) down_message: watch::Sender<Option<String>>,
}

#[derive(Debug)]
struct Inner {
    breakers: TargetBreakers,
    /// For each breaker at which a request has waited: a semaphore with one permit. Only the request that holds it may probe.
    probe_slots: BTreeMap<BreakerKey, Arc<Semaphore>>,
}

/// The right of a request to pass one breaker.
#[derive(Debug)]
pub(super) struct Pass {
    key: BreakerKey,
    /// `None`: the breaker was closed. Otherwise the request is its probe, and no other probe is sent before this slot is released.
    probe_slot: Option<OwnedSemaphorePermit>,
}

impl Breakers {
    pub(super) fn new(target_name: Arc<str>, backoff: BackoffPolicy, clock: Clock) -> Self {
        let inner = Mutex::new(Inner { breakers: TargetBreakers::new(backoff), probe_slots: BTreeMap::new() });
        Self { target_name, clock, inner, breaker_closed: Notify::new(), down_message: watch::Sender::new(None) }
    }

    /// Waits at two breakers, one after the other: that of this operation on this store, and the target's. A pass means that the
    /// breaker is closed, or that the request may probe it.
    pub(super) async fn wait_for_passes(&self, operation: Operation, store: &StoreId) -> [Pass; 2] {
        let store_pass = self.wait_for_pass(BreakerKey::Store(operation, store.clone())).await;
        [store_pass, self.wait_for_pass(BreakerKey::Target).await]
    }

    /// Waits until the breaker is closed, or until the request may probe it: it first waits to be the only probe, then until `probe_at`.
    async fn wait_for_pass(&self, key: BreakerKey) -> Pass {
        let new_slot = || Arc::new(Semaphore::new(1));
        let mut probe_slot = None;
        loop {
            // Created before the check: `notify_waiters` also reaches it if it was not polled yet, so no close is missed.
            let next_close = self.breaker_closed.notified();
            // If the breaker is closed, a slot from an earlier round is not needed any more.
            let Some(probe_at) = self.next_probe_at(&key) else { return Pass { key, probe_slot: None } };
            if probe_slot.is_none() {
                let slot =
                    self.with_inner(|inner| Arc::clone(inner.probe_slots.entry(key.clone()).or_insert_with(new_slot)));
                // Always `Some`, because the semaphore is never closed.
                probe_slot = slot.acquire_owned().await.ok();
                // The breaker may have closed meanwhile.
                continue;
            }
            if self.clock.now().monotonic >= probe_at {
                return Pass { key, probe_slot };
            }
            tokio::select! {
                biased;
                () = next_close => {}
                () = self.clock.sleep_until(probe_at) => {}
            }
        }
    }

    /// False if a breaker is open and the request is not its probe.
    pub(super) fn are_still_valid(&self, passes: &[Pass]) -> bool {
        passes.iter().all(|pass| pass.probe_slot.is_some() || self.next_probe_at(&pass.key).is_none())
    }

    /// Handles the outcome of a request that was sent at `sent_at`.
    pub(super) fn request_ended(
        &self,
        operation: Operation,
        store: &StoreId,
        failure: Option<&RequestFailure>,
        sent_at: Monotonic,
        now: Monotonic,
    ) {
        let events = self.with_inner(|inner| {
            let events = inner.breakers.request_ended(operation, store, failure, sent_at, now);
            // Published under the lock, so that an older state never replaces a newer one.
            let down = inner.breakers.down_message().map(str::to_owned);
            // Wakes the receivers only if the message has changed.
            self.down_message.send_if_modified(|message| std::mem::replace(message, down.clone()) != down);
            events
        });
        if events.iter().any(|event| !event.is_open) {
            self.breaker_closed.notify_waiters();
        }
        for event in events {
            self.log(&event, failure.map_or("", |failure| &failure.message));
        }
    }

    fn log(&self, BreakerEvent { key, is_open, cause }: &BreakerEvent, message: &str) {
        let target = &self.target_name;
        match (key, is_open, cause) {
            (BreakerKey::Target, true, OpenCause::Unreachable) => warn!(event = "target_unreachable", %target,
                "every request fails; probing with one request at a time: {message}"),
            (BreakerKey::Target, true, OpenCause::Rejected) => warn!(event = "credentials_rejected", %target,
                "credentials rejected; probing with one request at a time: {message}"),
            (BreakerKey::Target, false, OpenCause::Unreachable) => {
                info!(event = "target_reachable", %target, "requests succeed again");
            }
            (BreakerKey::Target, false, OpenCause::Rejected) => info!(event = "credentials_accepted", %target,
                "credentials accepted again"),
            (BreakerKey::Store(Operation::Get(kind), store), true, _) => {
                warn!(event = "access_denied_to_store", %target, %kind, store_id = %store,
                    "access denied to every job of this kind in this store; probing with one request at a time: {message}");
            }
            (BreakerKey::Store(Operation::Get(kind), store), false, _) => info!(event = "access_restored",
                %target, %kind, store_id = %store, "access to the jobs of this kind in this store is allowed again"),
            (BreakerKey::Store(Operation::List(_), _), ..) => {}
        }
    }

    /// See [`super::Target::wait_for_breaker_close`].
    pub(super) async fn wait_for_breaker_close(&self, kind: JobKind, store: &StoreId, since: Monotonic) {
        loop {
            let next_close = self.breaker_closed.notified();
            if self.with_inner(|inner| inner.breakers.breaker_closed_after(kind, store, since)) {
                return;
            }
            next_close.await;
        }
    }

    /// `None` while the breaker is closed.
    fn next_probe_at(&self, key: &BreakerKey) -> Option<Monotonic> {
        self.with_inner(|inner| Some(inner.breakers.state_if_open(key)?.probe_at))
    }

    // After a panic under the lock, the target goes on with the state as it is.
    fn with_inner<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
