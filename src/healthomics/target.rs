//! One target: sends the polls and listings of one account, region and role.
//!
//! A request holds a [`RequestPermit`] until it ends. Every outcome is counted, and reported to the pacer and the circuit breakers.
//! A target publishes its own health. It makes no decision about jobs.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, watch};

use super::breakers::{Breakers, Pass};
use super::scheduler::{Priority, Scheduler};
use super::service::{HealthOmics, ListPage, RequestFuture, ServiceFactory, TargetError};
use crate::clock::Clock;
use crate::config::TargetConfig;
use crate::core::failure::{Operation, PollFailure, PollOutcome};
use crate::core::job::{JobKey, ReferenceStoreId};
use crate::core::time::{Monotonic, Timestamp};
use crate::instruments::Instruments;

#[derive(Debug)]
pub struct Target {
    service: Arc<dyn HealthOmics>,
    clock: Clock,
    get: Scheduler,
    list: Scheduler,
    breakers: Breakers,
}

/// The right to send one request: an in-flight permit, and the passes of the store's and the target's circuit breaker.
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
        let rate = config.quota.configured_rate();
        let scheduler = |operation| Scheduler::new(rate, clock, instruments.operation(&config.name, operation));
        let [get, list] = Operation::ALL.map(scheduler);
        let breakers = Breakers::new(Arc::clone(&config.name), config.backoff, clock);
        Ok(Self { service, clock, get, list, breakers })
    }

    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    #[must_use]
    pub fn aws_region(&self) -> &Arc<str> {
        self.service.aws_region()
    }

    /// The configured rate of polls, in requests per second.
    #[must_use]
    pub fn configured_rate(&self) -> f64 {
        self.get.configured_rate()
    }

    /// The message of the failure that keeps the target down; `None` while the target is not known to be down.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Option<String>> {
        self.breakers.health.subscribe()
    }

    /// Waits at the circuit breakers and for the quota. The permit is for one poll of a job of `store`.
    pub async fn poll_permit(&self, store: &ReferenceStoreId, priority: Priority) -> RequestPermit {
        self.permit(Operation::GetReferenceImportJob, store, priority).await
    }

    /// Requests one job, once. `permit` is from [`Self::poll_permit`] for the job's store.
    ///
    /// # Errors
    /// See [`PollFailure`].
    pub async fn poll(&self, key: &JobKey, permit: RequestPermit) -> PollOutcome {
        let request = self.service.get_reference_import_job(key);
        self.send(Operation::GetReferenceImportJob, &key.store, permit, request).await
    }

    /// Waits for a permit, then lists one page. See [`HealthOmics::list_reference_import_jobs`].
    ///
    /// # Errors
    /// See [`PollFailure`].
    pub async fn list(
        &self,
        store: &ReferenceStoreId,
        created_after: Option<Timestamp>,
        token: Option<String>,
    ) -> Result<ListPage, PollFailure> {
        let operation = Operation::ListReferenceImportJobs;
        let permit = self.permit(operation, store, Priority::Routine).await;
        let request = self.service.list_reference_import_jobs(store, created_after, token);
        self.send(operation, store, permit, request).await
    }

    /// Returns once a breaker that blocks polls of `store` has closed after `sent`, which may be at once. A failed job then retries
    /// early.
    pub async fn breaker_closed_after(&self, store: &ReferenceStoreId, sent: Monotonic) {
        self.breakers.breaker_closed_after(store, sent).await;
    }

    async fn permit(&self, operation: Operation, store: &ReferenceStoreId, priority: Priority) -> RequestPermit {
        loop {
            let passes = self.breakers.wait_for_passes(operation, store).await;
            // If a breaker opens meanwhile, the request waits at the breaker again.
            let wanted = || self.breakers.are_valid(&passes);
            if let Some(in_flight) = self.scheduler(operation).acquire(priority, wanted).await {
                return RequestPermit { _passes: passes, _in_flight: in_flight };
            }
        }
    }

    async fn send<T>(
        &self,
        operation: Operation,
        store: &ReferenceStoreId,
        permit: RequestPermit,
        request: RequestFuture<'_, T>,
    ) -> Result<T, PollFailure> {
        let sent = self.clock.now().monotonic;
        let outcome = request.await;
        let now = self.clock.now().monotonic;
        let failure = outcome.as_ref().err();
        self.scheduler(operation).request_ended(sent, now, failure.map(|failure| failure.reason));
        self.breakers.request_ended(operation, store, failure, sent, now);
        drop(permit);
        outcome
    }

    fn scheduler(&self, operation: Operation) -> &Scheduler {
        match operation {
            Operation::GetReferenceImportJob => &self.get,
            Operation::ListReferenceImportJobs => &self.list,
        }
    }
}
