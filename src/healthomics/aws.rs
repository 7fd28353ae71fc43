//! AWS itself: the SDK's client of one target, and what of the SDK is switched off.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_sdk_omics::Client;
use aws_sdk_omics::config::http::HttpResponse;
use aws_sdk_omics::config::{Credentials, StalledStreamProtectionConfig};
use aws_sdk_omics::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_omics::primitives::DateTime;
use aws_sdk_omics::types::ImportReferenceFilter;
use tokio::sync::Mutex;

use super::identity::{self, CallerIdentity};
use super::service::{Asked, Connect, Connecting, HealthOmics, ListPage};
use super::{TargetError, answer, failure, list, wire};
use crate::clock::Clock;
use crate::config::TargetConfig;
use crate::core::failure::{FailureReason, Operation, PollFailure};
use crate::core::job::{JobKey, ReferenceStoreId, Snapshot};
use crate::core::time::Timestamp;

/// The longest time to establish a connection; the SDK's own default since behaviour version 2026-01-12.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);

/// Jobs on a page of a listing: the API's maximum.
const LIST_PAGE_JOBS: i32 = 100;

/// Reaches targets through AWS's SDK.
#[derive(Clone, Copy, Debug)]
pub struct Aws {
    clock: Clock,
}

impl Aws {
    /// `clock` tells how long from now a `Retry-After` that is a date lies.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// Reads the system's certificate authorities, which the first client does else: hundreds of files, beside which other work can
    /// be done.
    pub fn read_authorities() {
        let client = aws_sdk_omics::Config::builder().behavior_version(BehaviorVersion::v2026_01_12());
        drop(Client::from_conf(client.region(Region::from_static("us-east-1")).build()));
    }
}

#[derive(Debug)]
struct AwsTarget {
    config: TargetConfig,
    aws_region: Arc<str>,
    standing: Mutex<Standing>,
    clock: Clock,
}

/// The client in use. It would keep the credentials that it found for as long as they say that they are good; once AWS has refused
/// them, the next request makes a new one, which looks for them everywhere anew.
#[derive(Debug)]
struct Standing {
    connection: Arc<Connection>,
    refused: bool,
}

#[derive(Debug)]
struct Connection {
    sdk: SdkConfig,
    client: Client,
}

impl Connect for Aws {
    /// Builds the client of one target: AWS's own chain (environment, profile, SSO, container, instance role, process) and what
    /// the configuration puts over it. Credentials are fetched at the first call, not here.
    fn connect<'a>(&'a self, config: &'a TargetConfig) -> Connecting<'a> {
        Box::pin(async move {
            let sdk = sdk_config(config).await;
            let region = sdk.region().ok_or_else(|| TargetError::NoRegion(Arc::clone(&config.name)))?;
            let aws_region = region.as_ref().into();
            let config = TargetConfig { region: Some(region.to_string()), ..config.clone() };
            let standing = Mutex::new(Standing::new(&config, sdk));
            Ok(Arc::new(AwsTarget { config, aws_region, standing, clock: self.clock }) as Arc<dyn HealthOmics>)
        })
    }
}

impl Standing {
    fn new(config: &TargetConfig, sdk: SdkConfig) -> Self {
        let client = client(config, &sdk);
        Self { connection: Arc::new(Connection { sdk, client }), refused: false }
    }
}

impl AwsTarget {
    async fn connection(&self) -> Arc<Connection> {
        let mut standing = self.standing.lock().await;
        if standing.refused {
            *standing = Standing::new(&self.config, sdk_config(&self.config).await);
        }
        Arc::clone(&standing.connection)
    }

    async fn failed<E>(
        &self,
        operation: Operation,
        asked: &Arc<Connection>,
        error: &SdkError<E, HttpResponse>,
    ) -> PollFailure
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let failure = failure::classify(Some(operation), &self.config, error, self.clock.now().wall);
        if failure.reason == FailureReason::Credentials {
            let mut standing = self.standing.lock().await;
            // Requests in flight together were refused with the same credentials.
            standing.refused |= Arc::ptr_eq(&standing.connection, asked);
        }
        failure
    }
}

impl HealthOmics for AwsTarget {
    fn aws_region(&self) -> &Arc<str> {
        &self.aws_region
    }

    fn get_reference_import_job<'a>(&'a self, key: &'a JobKey) -> Asked<'a, Snapshot> {
        Box::pin(async move {
            let asked = self.connection().await;
            let request = asked.client.get_reference_import_job();
            match request.reference_store_id(key.store.as_str()).id(key.job.as_str()).send().await {
                Ok(answer) => answer::snapshot(key, &answer),
                Err(error) => Err(self.failed(Operation::GetReferenceImportJob, &asked, &error).await),
            }
        })
    }

    fn caller_identity(&self) -> Asked<'_, Option<CallerIdentity>> {
        Box::pin(async move { identity::caller_identity(&self.connection().await.sdk, &self.config, self.clock).await })
    }

    fn list_reference_import_jobs<'a>(
        &'a self,
        store: &'a ReferenceStoreId,
        created_after: Option<Timestamp>,
        token: Option<String>,
    ) -> Asked<'a, ListPage> {
        Box::pin(async move {
            let after = created_after.map(|time| DateTime::from_secs_and_nanos(time.as_second(), subsec_nanos(time)));
            let asked = self.connection().await;
            let request = asked.client.list_reference_import_jobs().reference_store_id(store.as_str());
            let request = request.max_results(LIST_PAGE_JOBS).set_next_token(token);
            let request = request.filter(ImportReferenceFilter::builder().set_created_after(after).build());
            match request.send().await {
                Ok(answer) => list::page(store, answer),
                Err(error) => Err(self.failed(Operation::ListReferenceImportJobs, &asked, &error).await),
            }
        })
    }
}

fn client(config: &TargetConfig, sdk: &SdkConfig) -> Client {
    let client = aws_sdk_omics::config::Builder::from(sdk);
    let mut client = client.interceptor(wire::AnswerLimit).interceptor(wire::EndpointVerbatim);
    if let Some(user_agent) = wire::UserAgent::of(sdk) {
        client = client.interceptor(user_agent);
    }
    if let Some(endpoint) = &config.endpoint_url {
        client = client.endpoint_url(endpoint);
    }
    Client::from_conf(client.build())
}

async fn sdk_config(config: &TargetConfig) -> SdkConfig {
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(config.timeout).build();
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
