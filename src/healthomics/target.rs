//! Sends the polls and listings of one target, through its circuit breakers and within its quota.
//!
//! A request holds a [`RequestPermit`] until it ends. Every outcome is reported to the scheduler, which adapts the request rate, and to
//! the circuit breakers.
//! A target publishes why it is down. It makes no decision about jobs.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use tokio::sync::{OwnedSemaphorePermit, watch};

use super::breakers::{Breakers, Pass};
use super::scheduler::{Priority, Scheduler};
use super::service::{ListPage, RequestFuture, ServiceFactory, TargetError, TargetService};
use crate::clock::Clock;
use crate::config::TargetConfig;
use crate::core::failure::{Operation, PollResult, RequestFailure};
use crate::core::job::{JobKey, StoreId};
use crate::core::kind::JobKind;
use crate::core::time::{Monotonic, Timestamp};
use crate::instruments::Instruments;

#[derive(Debug)]
pub struct Target {
    service: Arc<dyn TargetService>,
    clock: Clock,
    config: TargetConfig,
    instruments: Instruments,
    /// Each is created at the first request of its operation, so only operations in use have metrics.
    schedulers: BTreeMap<Operation, OnceLock<Scheduler>>,
    breakers: Breakers,
}

/// The right to send one request: an in-flight permit and two passes. One is of the breaker of this operation on this store, the other of
/// the target's breaker.
#[derive(Debug)]
#[must_use]
pub struct RequestPermit {
    _passes: [Pass; 2],
    _in_flight: OwnedSemaphorePermit,
}

impl Target {
    /// See [`ServiceFactory::build`].
    ///
    /// # Errors
    /// See [`TargetError`].
    pub async fn new(
        config: &TargetConfig,
        factory: &dyn ServiceFactory,
        clock: Clock,
        instruments: &Instruments,
    ) -> Result<Self, TargetError> {
        let service = factory.build(config).await?;
        let schedulers = Operation::all().map(|operation| (operation, OnceLock::new())).collect();
        let breakers = Breakers::new(Arc::clone(&config.name), config.backoff, clock);
        let (config, instruments) = (config.clone(), instruments.clone());
        Ok(Self { service, clock, config, instruments, schedulers, breakers })
    }

    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    #[must_use]
    pub fn aws_region(&self) -> &Arc<str> {
        self.service.aws_region()
    }

    /// The configured rate of polls of one kind, in requests per second.
    #[must_use]
    pub fn configured_rate(&self, kind: JobKind) -> f64 {
        self.config.quota_of(Operation::Get(kind)).configured_rate()
    }

    /// The message of the failure that keeps the target down; `None` while the target is not known to be down.
    #[must_use]
    pub fn subscribe_down_message(&self) -> watch::Receiver<Option<String>> {
        self.breakers.down_message.subscribe()
    }

    /// Waits at the circuit breakers and for the quota. The permit is for one poll of the job. Cancel safe.
    pub async fn poll_permit(&self, key: &JobKey, priority: Priority) -> RequestPermit {
        self.permit(Operation::Get(key.kind), &key.store, priority).await
    }

    /// Requests one job, once. `permit` is from [`Self::poll_permit`] for the job.
    ///
    /// # Errors
    /// See [`RequestFailure`].
    pub async fn poll(&self, key: &JobKey, permit: RequestPermit) -> PollResult {
        let request = self.service.get_job(key);
        self.send(Operation::Get(key.kind), &key.store, permit, request).await
    }

    /// Waits for a permit, then lists one page. See [`TargetService::list_jobs`].
    ///
    /// # Errors
    /// See [`RequestFailure`].
    pub async fn list(
        &self,
        kind: JobKind,
        store: &StoreId,
        created_after: Option<Timestamp>,
        token: Option<String>,
    ) -> Result<ListPage, RequestFailure> {
        let operation = Operation::List(kind);
        let permit = self.permit(operation, store, Priority::Routine).await;
        let request = self.service.list_jobs(kind, store, created_after, token);
        self.send(operation, store, permit, request).await
    }

    /// Waits until the target's breaker, or the breaker of polls of `kind` in `store`, closes. If neither is open, this may be for ever.
    /// `since` is the time at which the caller began the poll or listing that failed. Returns at once if one of these breakers has closed
    /// since then. The caller also waits for its backoff, and retries after the shorter wait. The breaker of listings is not awaited: only
    /// the lister of the store could close it, with its next request. Cancel safe.
    pub async fn wait_for_breaker_close(&self, kind: JobKind, store: &StoreId, since: Monotonic) {
        self.breakers.wait_for_breaker_close(kind, store, since).await;
    }

    async fn permit(&self, operation: Operation, store: &StoreId, priority: Priority) -> RequestPermit {
        loop {
            let passes = self.breakers.wait_for_passes(operation, store).await;
            // If a breaker opens meanwhile, the request waits at the breaker again.
            let passes_are_valid = || self.breakers.are_still_valid(&passes);
            if let Some(in_flight) = self.scheduler(operation).acquire(priority, passes_are_valid).await {
                return RequestPermit { _passes: passes, _in_flight: in_flight };
            }
        }
    }

    async fn send<T>(
        &self,
        operation: Operation,
        store: &StoreId,
        permit: RequestPermit,
        request: RequestFuture<'_, T>,
    ) -> Result<T, RequestFailure> {
        let sent_at = self.clock.now().monotonic;
        let outcome = request.await;
        let now = self.clock.now().monotonic;
        let failure = outcome.as_ref().err();
        self.scheduler(operation).request_ended(failure.map(|failure| failure.reason), sent_at, now);
        self.breakers.request_ended(operation, store, failure, sent_at, now);
        // Dropped after the report, so that the next probe sees the new state of the breaker.
        drop(permit);
        outcome
    }

    fn scheduler(&self, operation: Operation) -> &Scheduler {
        let new = || {
            let instruments = self.instruments.operation(&self.config.name, operation);
            Scheduler::new(self.config.quota_of(operation).configured_rate(), self.clock, instruments)
        };
        self.schedulers[&operation].get_or_init(new)
    }
}
