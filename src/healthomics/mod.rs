//! The AWS edge: one client per target, one HTTP request per poll, and one way for each answer to become a value of ours.
//!
//! AWS's types stop here. The SDK's own retries are off: a failed poll becomes the same job's next, later poll, and one send
//! is one request is one count.

mod answer;
mod aws;
mod failure;
mod gate;
mod identity;
mod list;
mod redact;
mod service;
mod turn;
mod wire;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::config::TargetConfig;
use crate::core::failure::{Operation, PollFailure, PollOutcome};
use crate::core::job::{JobKey, ReferenceStoreId};
use crate::core::outage::Outage;
use crate::core::time::{Monotonic, Timestamp};
use crate::instruments::Instruments;
pub use aws::Aws;
use gate::Gates;
pub use gate::Turn;
pub use identity::CallerIdentity;
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
    gates: Gates,
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
        let gates = Gates::new(Arc::clone(&config.name), config.backoff, clock);
        Ok(Self { service, clock, get, list, outage: Mutex::default(), recovered: Notify::new(), gates })
    }

    /// The clocks that its requests go by.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
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

    /// Why nothing can be seen through this target, if AWS refuses everything that was asked for.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        self.gates.refused()
    }

    /// Returns when the quota allows a poll of a job of `store`. The turn has to be kept until it was answered. Boxed, as [`Asked`] is.
    pub fn poll_turn<'a>(
        &'a self,
        store: &'a ReferenceStoreId,
        urgency: Urgency,
    ) -> Pin<Box<dyn Future<Output = Turn> + Send + 'a>> {
        Box::pin(self.turn((Operation::GetReferenceImportJob, store), urgency))
    }

    /// Asks for one job, once.
    ///
    /// # Errors
    /// Every way in which that can fail is a value: see [`PollFailure`].
    pub async fn poll(&self, key: &JobKey) -> PollOutcome {
        let what = (Operation::GetReferenceImportJob, &key.store);
        self.ask(what, self.service.get_reference_import_job(key)).await
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
        let what = (Operation::ListReferenceImportJobs, store);
        let _turn = self.turn(what, Urgency::Routine).await;
        self.ask(what, self.service.list_reference_import_jobs(store, created_after, token)).await
    }

    /// Returns once an outage, or a refusal of all polls of `store`, has ended after `sent`: whoever failed since it began need not
    /// wait out a backoff.
    pub async fn recovered_after(&self, store: &ReferenceStoreId, sent: Monotonic) {
        loop {
            let recovered = self.recovered.notified();
            if self.with_outage(|outage| outage.ended_after(sent)) || self.gates.opened_after(store, sent) {
                return;
            }
            recovered.await;
        }
    }

    async fn turn(&self, what: (Operation, &ReferenceStoreId), urgency: Urgency) -> Turn {
        loop {
            let turn = self.gates.pass(what.0, what.1).await;
            if let Some(place) = self.turns(what.0).take(urgency, || turn.stands()).await {
                return turn.with(place);
            }
        }
    }

    fn turns(&self, operation: Operation) -> &Turns {
        match operation {
            Operation::GetReferenceImportJob => &self.get,
            Operation::ListReferenceImportJobs => &self.list,
        }
    }

    async fn ask<T>(&self, what: (Operation, &ReferenceStoreId), request: Asked<'_, T>) -> Result<T, PollFailure> {
        let sent = self.clock.now().monotonic;
        let outcome = request.await;
        let now = self.clock.now().monotonic;
        let failure = outcome.as_ref().err().map(|failure| failure.reason);
        self.turns(what.0).request_ended(sent, now, failure);
        let opened = self.gates.request_ended(what, sent, now, outcome.as_ref().err());
        if self.with_outage(|outage| outage.request_ended(failure, now)) || opened {
            self.recovered.notify_waiters();
        }
        outcome
    }

    // A panic while the lock was held leaves whole values behind.
    fn with_outage<T>(&self, use_it: impl FnOnce(&mut Outage) -> T) -> T {
        use_it(&mut self.outage.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
