//! The circuit breakers of one target: requests wait here while theirs is open.
//!
//! There is one breaker for the target, and one for each operation on each store, since IAM policies name stores. The rules
//! are in [`CircuitBreaker`]; this module feeds them with responses, makes callers wait, logs changes and publishes health.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tracing::{info, warn};

use crate::clock::Clock;
use crate::core::backoff::BackoffPolicy;
use crate::core::breaker::CircuitBreaker;
use crate::core::failure::{Operation, PollFailure, QuotaEvidence, Scope};
use crate::core::job::ReferenceStoreId;
use crate::core::time::Monotonic;

#[derive(Debug)]
pub(super) struct Breakers {
    name: Arc<str>,
    backoff: BackoffPolicy,
    clock: Clock,
    target: Arc<Breaker>,
    stores: Mutex<BTreeMap<(Operation, ReferenceStoreId), Arc<Breaker>>>,
    /// Notified when any breaker closes.
    closed: Notify,
    health: watch::Sender<Option<String>>,
}

#[derive(Debug)]
struct Breaker {
    state: Mutex<CircuitBreaker>,
    /// The queue for the one probe.
    probe: Arc<Semaphore>,
}

/// A request's way past one breaker. A probe holds its permit until the response.
#[derive(Debug)]
pub(super) struct Pass {
    breaker: Arc<Breaker>,
    probe: Option<OwnedSemaphorePermit>,
}

impl Breakers {
    pub(super) fn new(name: Arc<str>, backoff: BackoffPolicy, clock: Clock) -> Self {
        let (target, health) = (Arc::new(Breaker::new(backoff)), watch::Sender::new(None));
        Self { name, backoff, clock, target, stores: Mutex::default(), closed: Notify::new(), health }
    }

    /// See [`super::Target::health`].
    pub(super) fn health(&self) -> watch::Receiver<Option<String>> {
        self.health.subscribe()
    }

    /// Waits until both breakers are closed, or until the caller becomes the probe of an open one.
    pub(super) async fn pass(&self, operation: Operation, store: &ReferenceStoreId) -> [Pass; 2] {
        let store = self.pass_one(self.store(operation, store)).await;
        [store, self.pass_one(Arc::clone(&self.target)).await]
    }

    async fn pass_one(&self, breaker: Arc<Breaker>) -> Pass {
        if breaker.probe_at().is_none() {
            return Pass { breaker, probe: None };
        }
        // An error means that the semaphore is closed, and it never is.
        let probe = Arc::clone(&breaker.probe).acquire_owned().await.ok();
        loop {
            let closed = self.closed.notified();
            let Some(probe_at) = breaker.probe_at() else { break };
            if self.clock.now().monotonic >= probe_at {
                drop(closed);
                return Pass { breaker, probe };
            }
            tokio::select! {
                biased;
                () = closed => {}
                () = self.clock.sleep_until(probe_at) => {}
            }
        }
        Pass { breaker, probe: None }
    }

    /// Takes in how the request that was sent at `sent` ended.
    pub(super) fn request_ended(
        &self,
        operation: Operation,
        store: &ReferenceStoreId,
        sent: Monotonic,
        now: Monotonic,
        failure: Option<&PollFailure>,
    ) {
        let class = failure.map(|failure| failure.reason.class());
        // A throttled request may have been rejected before anything else was checked.
        if class.is_some_and(|class| class.quota == QuotaEvidence::Exceeded) {
            return;
        }
        match (failure, class.map_or(Scope::Job, |class| class.scope)) {
            (Some(failure), Scope::Target) => self.target_failed(failure, sent, now),
            (Some(failure), Scope::Store) => {
                self.target_succeeded(now);
                // The store's lister logs a rejected listing.
                if self.store(operation, store).with(|breaker| breaker.failed(failure, sent, now))
                    && operation == Operation::GetReferenceImportJob
                {
                    warn!(event = "access_refused", target = %self.name, reference_store_id = %store,
                        "access denied to all jobs of this store; probing with one request at a time: {failure}");
                }
            }
            (_, Scope::Job) | (None, _) => {
                self.target_succeeded(now);
                if self.store(operation, store).with(|breaker| breaker.succeeded(now)).is_some() {
                    self.closed.notify_waiters();
                    if operation == Operation::GetReferenceImportJob {
                        info!(event = "access_granted", target = %self.name, reference_store_id = %store,
                            "access to the jobs of this store is allowed again");
                    }
                }
            }
        }
        let reason = self.down();
        self.health.send_if_modified(|health| std::mem::replace(health, reason.clone()) != reason);
    }

    fn target_failed(&self, failure: &PollFailure, sent: Monotonic, now: Monotonic) {
        if !self.target.with(|breaker| breaker.failed(failure, sent, now)) {
            return;
        }
        if failure.reason.class().needs_operator {
            warn!(event = "identity_refused", target = %self.name,
                "credentials rejected; probing with one request at a time: {failure}");
        } else {
            warn!(event = "target_unreachable", target = %self.name,
                "every request fails; probing with one request at a time: {failure}");
        }
    }

    fn target_succeeded(&self, now: Monotonic) {
        let Some(open) = self.target.with(|breaker| breaker.succeeded(now)) else { return };
        self.closed.notify_waiters();
        if open.unreachable {
            info!(event = "target_reachable", target = %self.name, "requests through this target succeed again");
        } else {
            info!(event = "identity_accepted", target = %self.name, "the credentials of this target are accepted again");
        }
    }

    /// Why the target is down: its own breaker is open, or access is denied to every store that it polls, or lists if it polls none.
    fn down(&self) -> Option<String> {
        let open = |breaker: &Breaker| breaker.with(|breaker| breaker.open().map(|open| open.message.clone()));
        open(&self.target).or_else(|| {
            let stores = self.lock_stores();
            let of = |operation| stores.iter().filter(move |((of, _), _)| *of == operation);
            let used = Operation::ALL.into_iter().find(|&operation| of(operation).next().is_some())?;
            of(used).map(|(_, breaker)| open(breaker)).collect::<Option<Vec<_>>>()?.pop()
        })
    }

    /// Waits until a breaker in the way of polls of `store` closes after `sent`.
    pub(super) async fn closed_after(&self, store: &ReferenceStoreId, sent: Monotonic) {
        let store = self.store(Operation::GetReferenceImportJob, store);
        loop {
            let closed = self.closed.notified();
            if [&store, &self.target].iter().any(|breaker| breaker.with(|breaker| breaker.closed_after(sent))) {
                return;
            }
            closed.await;
        }
    }

    fn store(&self, operation: Operation, store: &ReferenceStoreId) -> Arc<Breaker> {
        let mut stores = self.lock_stores();
        let breaker = stores.entry((operation, store.clone()));
        Arc::clone(breaker.or_insert_with(|| Arc::new(Breaker::new(self.backoff))))
    }

    // No panic can leave the map half changed.
    fn lock_stores(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Operation, ReferenceStoreId), Arc<Breaker>>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Breaker {
    fn new(backoff: BackoffPolicy) -> Self {
        Self { state: Mutex::new(CircuitBreaker::new(backoff)), probe: Arc::new(Semaphore::new(1)) }
    }

    fn probe_at(&self) -> Option<Monotonic> {
        self.with(|breaker| breaker.probe_at())
    }

    // No panic can leave the state half changed.
    fn with<T>(&self, use_it: impl FnOnce(&mut CircuitBreaker) -> T) -> T {
        use_it(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pass {
    /// False once the breaker has opened, unless this is its probe.
    pub(super) fn is_valid(&self) -> bool {
        self.probe.is_some() || self.breaker.probe_at().is_none()
    }
}
