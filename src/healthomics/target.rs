//! One target: requests to one account, region and role go through here.
//!
//! A caller asks for a permit, sends one request and holds the permit until the response. Every response is counted and reaches
//! the pacer and the circuit breakers. A target publishes its own health and decides nothing about jobs.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, watch};

use super::breakers::{Breakers, Pass};
use super::scheduler::{Priority, Scheduler};
use super::service::{Connect, HealthOmics, ListPage, RequestFuture, TargetError};
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

/// The right to send one request. It must be held until the response.
#[derive(Debug)]
#[must_use]
pub struct RequestPermit {
    _passes: [Pass; 2],
    _in_flight: OwnedSemaphorePermit,
}

impl Target {
    /// Builds the client of one target. The service need not be reachable.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub async fn new(
        config: &TargetConfig,
        connect: &dyn Connect,
        clock: Clock,
        instruments: &Instruments,
    ) -> Result<Self, TargetError> {
        let service = connect.connect(config).await?;
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

    /// The target's health: `None` while requests succeed, else why the target is down.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Option<String>> {
        self.breakers.health.subscribe()
    }

    /// Waits until the circuit breakers and the quota allow a poll of a job of `store`.
    pub async fn poll_permit(&self, store: &ReferenceStoreId, priority: Priority) -> RequestPermit {
        self.permit(Operation::GetReferenceImportJob, store, priority).await
    }

    /// Requests one job, once.
    ///
    /// # Errors
    /// See [`PollFailure`].
    pub async fn poll(&self, key: &JobKey) -> PollOutcome {
        let request = self.service.get_reference_import_job(key);
        self.send(Operation::GetReferenceImportJob, &key.store, request).await
    }

    /// Lists one page of a store's jobs, those created after `created_after`, once the quota allows it.
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
        let _permit = self.permit(operation, store, Priority::Routine).await;
        self.send(operation, store, self.service.list_reference_import_jobs(store, created_after, token)).await
    }

    /// Waits until a circuit breaker in the way of polls of `store` closes after `sent`: a job that has failed since then need not
    /// wait out its backoff.
    pub async fn breaker_closed_after(&self, store: &ReferenceStoreId, sent: Monotonic) {
        self.breakers.breaker_closed_after(store, sent).await;
    }

    async fn permit(&self, operation: Operation, store: &ReferenceStoreId, priority: Priority) -> RequestPermit {
        loop {
            let passes = self.breakers.pass(operation, store).await;
            // A breaker that opens moves its requests from the queue of the quota to its own.
            let wanted = || self.breakers.allow(&passes);
            if let Some(in_flight) = self.scheduler(operation).acquire(priority, wanted).await {
                return RequestPermit { _passes: passes, _in_flight: in_flight };
            }
        }
    }

    async fn send<T>(
        &self,
        operation: Operation,
        store: &ReferenceStoreId,
        request: RequestFuture<'_, T>,
    ) -> Result<T, PollFailure> {
        let sent = self.clock.now().monotonic;
        let outcome = request.await;
        let now = self.clock.now().monotonic;
        let failure = outcome.as_ref().err();
        self.scheduler(operation).request_ended(sent, now, failure.map(|failure| failure.reason));
        self.breakers.request_ended(operation, store, failure, sent, now);
        outcome
    }

    fn scheduler(&self, operation: Operation) -> &Scheduler {
        match operation {
            Operation::GetReferenceImportJob => &self.get,
            Operation::ListReferenceImportJobs => &self.list,
        }
    }
}
