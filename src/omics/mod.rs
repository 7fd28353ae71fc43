//! The AWS edge: one client per target, one HTTP request per poll, and one way for each answer to become a value of ours.
//!
//! AWS's types stop here. The SDK's own retries are off: a failed poll becomes the same job's next, later poll, and one send
//! is one request is one count.

mod answer;
mod failure;
mod list;
mod turn;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_sdk_omics::Client;
use aws_sdk_omics::config::{Credentials, StalledStreamProtectionConfig};
use aws_sdk_omics::primitives::DateTime;
use aws_sdk_omics::types::ImportReferenceFilter;

use crate::clock::Clock;
use crate::config::TargetConfig;
use crate::core::job::{JobKey, ReferenceStoreId};
use crate::core::outcome::{Operation, PollFailure, PollOutcome};
use crate::core::time::Timestamp;
use crate::instruments::Instruments;
pub use list::{ListPage, ListedJob};
use turn::Turns;
pub use turn::Urgency;

/// The longest time to establish a connection; the SDK's own default since behaviour version 2026-01-12.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);

/// Jobs on a page of a listing: the API's maximum.
const LIST_PAGE_JOBS: i32 = 100;

/// Where calls go: one client, one quota.
#[derive(Debug)]
pub struct Target {
    aws_region: Arc<str>,
    client: Client,
    clock: Clock,
    get: Turns,
    list: Turns,
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
    /// Builds the client of one target: AWS's own chain (environment, profile, SSO, container, instance role, process) and what
    /// the configuration puts over it. Credentials are fetched at the first call, not here.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub async fn new(config: &TargetConfig, clock: Clock, instruments: &Instruments) -> Result<Self, TargetError> {
        let sdk = sdk_config(config).await;
        let region = sdk.region().ok_or_else(|| TargetError::NoRegion(Arc::clone(&config.name)))?;
        let aws_region = region.as_ref().into();
        let mut client = aws_sdk_omics::config::Builder::from(&sdk)
            .interceptor(wire::AnswerLimit)
            .interceptor(wire::EndpointVerbatim);
        if let Some(endpoint) = &config.endpoint_url {
            client = client.endpoint_url(endpoint);
        }
        let turns =
            |operation| Turns::new(config.quota.allowed(), clock, instruments.operation(&config.name, operation));
        let (get, list) = (turns(Operation::GetReferenceImportJob), turns(Operation::ListReferenceImportJobs));
        Ok(Self { aws_region, client: Client::from_conf(client.build()), clock, get, list })
    }

    /// The region that calls go to.
    #[must_use]
    pub fn aws_region(&self) -> &Arc<str> {
        &self.aws_region
    }

    /// The polls that the configured quota allows, in requests per second.
    #[must_use]
    pub fn polls_per_second(&self) -> f64 {
        self.get.limit()
    }

    /// Returns when the quota allows a poll; an urgent one goes before the others.
    pub async fn poll_turn(&self, urgency: Urgency) {
        self.get.take(urgency).await;
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
        let sent = self.clock.now().monotonic;
        let after = created_after.map(|time| DateTime::from_secs_and_nanos(time.as_second(), subsec_nanos(time)));
        let request = self.client.list_reference_import_jobs().reference_store_id(store.as_str());
        let request = request.max_results(LIST_PAGE_JOBS).set_next_token(token);
        let request = request.filter(ImportReferenceFilter::builder().set_created_after(after).build());
        let answer = Box::pin(request.send()).await;
        let now = self.clock.now();
        let outcome = match answer {
            Ok(answer) => list::page(store, answer),
            Err(error) => Err(failure::classify(&error, now.wall)),
        };
        self.list.request_ended(sent, now, outcome.as_ref().err());
        outcome
    }

    /// Asks for one job, once.
    ///
    /// # Errors
    /// Every way in which that can fail is a value: see [`PollFailure`].
    pub async fn poll(&self, key: &JobKey) -> PollOutcome {
        let sent = self.clock.now().monotonic;
        let request =
            self.client.get_reference_import_job().reference_store_id(key.store.as_str()).id(key.job.as_str());
        // Boxed: in a task that sleeps most of its life the future of a send would take 5 kB inline.
        let answer = Box::pin(request.send()).await;
        let now = self.clock.now();
        let outcome = match &answer {
            Ok(answer) => answer::snapshot(key, answer),
            Err(error) => Err(failure::classify(error, now.wall)),
        };
        self.get.request_ended(sent, now, outcome.as_ref().err());
        outcome
    }
}

async fn sdk_config(config: &TargetConfig) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT.min(config.timeout))
        .operation_attempt_timeout(config.timeout)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .app_name(AppName::new("refwatch").unwrap_or_else(|_| unreachable!("letters only")))
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &config.profile {
        // Named, it is what is meant: AWS's chain would let keys in the environment go before it.
        let credentials = ProfileFileCredentialsProvider::builder().profile_name(profile).build();
        loader = loader.profile_name(profile).credentials_provider(credentials);
    }
    if config.simulated {
        loader = loader.credentials_provider(Credentials::new("simulated", "simulated", None, None, "simulated"));
    }
    let sdk = loader.load().await;
    let Some(role_arn) = &config.role_arn else { return sdk };
    let mut role = AssumeRoleProvider::builder(role_arn).configure(&sdk).session_name("refwatch");
    if let Some(external_id) = &config.external_id {
        role = role.external_id(external_id);
    }
    let provider = aws_sdk_omics::config::SharedCredentialsProvider::new(role.build().await);
    sdk.into_builder().credentials_provider(provider).build()
}

/// The API's times have no sign in their fraction; ours counts from the second before.
fn subsec_nanos(time: Timestamp) -> u32 {
    u32::try_from(time.subsec_nanosecond()).unwrap_or(0)
}
