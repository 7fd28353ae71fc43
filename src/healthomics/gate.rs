//! Where requests wait while AWS refuses all that are like them: one of them at a time goes through and asks for the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

use crate::clock::Clock;
use crate::core::backoff::BackoffPolicy;
use crate::core::failure::{FailureReason, Operation, PollFailure};
use crate::core::job::ReferenceStoreId;
use crate::core::refusal::Refusal;
use crate::core::time::Monotonic;

/// The gates of one target: one for its identity, and one for each operation on each store, since policies are written for stores.
#[derive(Debug)]
pub(super) struct Gates {
    target: Arc<str>,
    backoff: BackoffPolicy,
    clock: Clock,
    identity: Arc<Gate>,
    stores: Mutex<BTreeMap<(Operation, ReferenceStoreId), Arc<Gate>>>,
}

#[derive(Debug)]
struct Gate {
    refusal: Mutex<Refusal>,
    /// First come, first served; whoever is next waits with it for the time of the next probe.
    probe: Arc<Semaphore>,
    opened: Notify,
    clock: Clock,
}

/// The right to send one request. A probe's is held until it was answered.
#[derive(Debug)]
#[must_use]
pub struct Turn {
    passages: [Passage; 2],
    /// Among the requests in flight.
    _place: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
struct Passage {
    gate: Arc<Gate>,
    probe: Option<OwnedSemaphorePermit>,
}

impl Gates {
    pub(super) fn new(target: Arc<str>, backoff: BackoffPolicy, clock: Clock) -> Self {
        let identity = Arc::new(Gate::new(backoff, clock));
        Self { target, backoff, clock, identity, stores: Mutex::default() }
    }

    /// Returns when nothing is refused, or when it is the caller's turn to ask whether it still is.
    pub(super) async fn pass(&self, operation: Operation, store: &ReferenceStoreId) -> Turn {
        let store = self.store(operation, store).pass().await;
        Turn { passages: [store, Arc::clone(&self.identity).pass().await], _place: None }
    }

    /// Takes in how the request that went out at `sent` ended, and says whether a refusal ended with it.
    pub(super) fn request_ended(
        &self,
        (operation, store): (Operation, &ReferenceStoreId),
        sent: Monotonic,
        now: Monotonic,
        failure: Option<&PollFailure>,
    ) -> bool {
        use FailureReason::{
            AccessDenied, Connect, Credentials, Internal, NotFound, Other, Protocol, Throttled, Timeout, Validation,
        };
        let gate = self.store(operation, store);
        let message = failure.map_or("", |failure| &failure.message);
        match failure.map(|failure| failure.reason) {
            None | Some(NotFound | Validation) => {
                let identity = self.accept_identity(now);
                let store_opened = gate.accepted(now);
                if store_opened && operation == Operation::GetReferenceImportJob {
                    info!(event = "access_granted", target = %self.target, reference_store_id = %store,
                        "jobs of this store may be read again");
                }
                identity || store_opened
            }
            Some(AccessDenied) => {
                // What follows from a listing that is denied, its sweeper tells.
                if gate.refused(message, sent, now) && operation == Operation::GetReferenceImportJob {
                    warn!(event = "access_refused", target = %self.target, reference_store_id = %store,
                        "no job of this store may be read: one at a time asks again: {message}");
                }
                self.accept_identity(now)
            }
            Some(Credentials) => {
                if self.identity.refused(message, sent, now) {
                    warn!(event = "identity_refused", target = %self.target,
                        "AWS lets nothing of this target through: one request at a time asks again: {message}");
                }
                false
            }
            // The service may not have looked at who asks.
            Some(Throttled | Timeout | Connect | Internal | Protocol | Other) => false,
        }
    }

    fn accept_identity(&self, now: Monotonic) -> bool {
        let opened = self.identity.accepted(now);
        if opened {
            info!(event = "identity_accepted", target = %self.target, "AWS lets this target through again");
        }
        opened
    }

    /// Why nothing can be seen through this target, if everything that was asked for is refused: all polls, or all listings where
    /// no job is polled.
    pub(super) fn refused(&self) -> Option<String> {
        let identity = self.identity.message();
        identity.or_else(|| {
            let stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
            let of = |operation| stores.iter().filter(move |((of, _), _)| *of == operation);
            let asked = Operation::ALL.into_iter().find(|&operation| of(operation).next().is_some())?;
            let messages: Option<Vec<String>> = of(asked).map(|(_, gate)| gate.message()).collect();
            messages?.pop()
        })
    }

    /// Whether a refusal of polls of this store, or of all, has ended after `sent`.
    pub(super) fn opened_after(&self, store: &ReferenceStoreId, sent: Monotonic) -> bool {
        let gate = self.store(Operation::GetReferenceImportJob, store);
        gate.with(|refusal| refusal.ended_after(sent)) || self.identity.with(|refusal| refusal.ended_after(sent))
    }

    fn store(&self, operation: Operation, store: &ReferenceStoreId) -> Arc<Gate> {
        // A panic while the lock was held leaves a whole map behind.
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = stores.entry((operation, store.clone()));
        Arc::clone(gate.or_insert_with(|| Arc::new(Gate::new(self.backoff, self.clock))))
    }
}

impl Gate {
    fn new(backoff: BackoffPolicy, clock: Clock) -> Self {
        let (refusal, probe) = (Mutex::new(Refusal::new(backoff)), Arc::new(Semaphore::new(1)));
        Self { refusal, probe, opened: Notify::new(), clock }
    }

    async fn pass(self: Arc<Self>) -> Passage {
        if self.probe_at().is_none() {
            return Passage { gate: self, probe: None };
        }
        // An error means that the queue is closed, which none ever is.
        let probe = Arc::clone(&self.probe).acquire_owned().await.ok();
        loop {
            let opened = self.opened.notified();
            let Some(probe_at) = self.probe_at() else { break };
            if self.clock.now().monotonic >= probe_at {
                drop(opened);
                return Passage { gate: self, probe };
            }
            tokio::select! {
                biased;
                () = opened => {}
                () = self.clock.sleep_until(probe_at) => {}
            }
        }
        Passage { gate: self, probe: None }
    }

    fn probe_at(&self) -> Option<Monotonic> {
        self.with(|refusal| refusal.probe_at())
    }

    fn message(&self) -> Option<String> {
        self.with(|refusal| refusal.message().map(str::to_owned))
    }

    fn refused(&self, message: &str, sent: Monotonic, now: Monotonic) -> bool {
        self.with(|refusal| refusal.refused(message, sent, now))
    }

    fn accepted(&self, now: Monotonic) -> bool {
        let ended = self.with(|refusal| refusal.accepted(now));
        if ended {
            self.opened.notify_waiters();
        }
        ended
    }

    // A panic while the lock was held leaves whole values behind.
    fn with<T>(&self, use_it: impl FnOnce(&mut Refusal) -> T) -> T {
        use_it(&mut self.refusal.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Turn {
    pub(super) fn with(self, place: OwnedSemaphorePermit) -> Self {
        Self { _place: Some(place), ..self }
    }

    /// Whether it still is one: where a gate has closed since, probes alone may go on.
    pub(super) fn stands(&self) -> bool {
        self.passages.iter().all(|Passage { gate, probe }| probe.is_some() || gate.probe_at().is_none())
    }
}
