//! The AWS edge: one client per target, one HTTP request per poll, and one way for each answer to become a value of ours.
//!
//! AWS's types stop here. The SDK's own retries are off: a failed poll becomes the same job's next, later poll, and one send
//! is one request is one count.

mod answer;
mod aws;
mod failure;
mod list;
mod redact;
mod service;
mod turn;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::config::TargetConfig;
use crate::core::job::{JobKey, ReferenceStoreId};
use crate::core::outage::Outage;
use crate::core::outcome::{Operation, PollFailure, PollOutcome};
use crate::core::time::{Monotonic, Timestamp};
use crate::instruments::Instruments;
pub use aws::Aws;
pub use service::{Asked, Connect, Connecting, HealthOmics, ListPage, ListedJob};
use turn::Turns;
pub use turn::Urgency;
pub use wire::EndpointVerbatim;

/// Where calls go: one service, one quota.
#[derive(Debug)]
pub struct Target {
    service: Arc<dyn HealthOmics>,
    clock: Clock,
    get: Turns,
    list: Turns,
    outage: Mutex<Outage>,
    recovered: Notify,
}

/// A target that cannot be built from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Neither the configuration nor AWS's own chain names a region.
    #[error(
        "target \"{0}\" has no AWS region: set `region` in [target.{0}], AWS_REGION, or a region in the AWS profile"
    )]
    NoRegion(Arc<str>),
}

impl Target {
    /// Prepares the way to one target.
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
        let turns =
            |operation| Turns::new(config.quota.allowed(), clock, instruments.operation(&config.name, operation));
        let (get, list) = (turns(Operation::GetReferenceImportJob), turns(Operation::ListReferenceImportJobs));
        Ok(Self { service, clock, get, list, outage: Mutex::default(), recovered: Notify::new() })
    }

    /// The region that calls go to.
    #[must_use]
    pub fn aws_region(&self) -> &Arc<str> {
        self.service.aws_region()
    }

    /// The polls that the configured quota allows, in requests per second.
    #[must_use]
    pub fn polls_per_second(&self) -> f64 {
        self.get.limit()
    }

    /// Returns when the quota allows a poll.
    pub async fn poll_turn(&self, urgency: Urgency) {
        self.get.take(urgency).await;
    }

    /// Asks for one job, once.
    ///
    /// # Errors
    /// Every way in which that can fail is a value: see [`PollFailure`].
    pub async fn poll(&self, key: &JobKey) -> PollOutcome {
        self.ask(&self.get, self.service.get_reference_import_job(key)).await
    }

    /// Lists one page of a store's jobs, those created after `created_after`, once the quota allows it.
    ///
    /// # Errors
    /// As with [`Self::poll`].
    pub async fn list(
        &self,
        store: &ReferenceStoreId,
        created_after: Option<Timestamp>,
        token: Option<String>,
    ) -> Result<ListPage, PollFailure> {
        self.list.take(Urgency::Routine).await;
        self.ask(&self.list, self.service.list_reference_import_jobs(store, created_after, token)).await
    }

    /// Returns once an outage has ended after `sent`: whoever failed since it began need not wait out a backoff.
    pub async fn recovered_after(&self, sent: Monotonic) {
        loop {
            let recovered = self.recovered.notified();
            if self.with_outage(|outage| outage.ended_after(sent)) {
                return;
            }
            recovered.await;
        }
    }

    async fn ask<T>(&self, turns: &Turns, request: Asked<'_, T>) -> Result<T, PollFailure> {
        let sent = self.clock.now().monotonic;
        let outcome = request.await;
        let now = self.clock.now().monotonic;
        let failure = outcome.as_ref().err().map(|failure| failure.reason);
        turns.request_ended(sent, now, failure);
        if self.with_outage(|outage| outage.request_ended(failure, now)) {
            self.recovered.notify_waiters();
        }
        outcome
    }

    // A panic while the lock was held leaves whole values behind.
    fn with_outage<T>(&self, use_it: impl FnOnce(&mut Outage) -> T) -> T {
        use_it(&mut self.outage.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
