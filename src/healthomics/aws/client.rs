//! The SDK's client of one target, and the SDK defaults that are switched off.
//!
//! Credentials come from AWS's own chain, or from the profile or role that the configuration names. A client keeps them until they
//! expire. When the service rejects them, the next request builds a new client, which reads them again from their source.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_sdk_omics::Client;
use aws_sdk_omics::config::http::HttpResponse;
use aws_sdk_omics::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeSerializationInterceptorContextMut,
};
use aws_sdk_omics::config::{ConfigBag, Credentials, Intercept, RuntimeComponents, StalledStreamProtectionConfig};
use aws_sdk_omics::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_omics::primitives::{DateTime, SdkBody};
use aws_sdk_omics::types::ImportReferenceFilter;
use aws_smithy_runtime_api::client::endpoint::EndpointPrefix;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_types::endpoint_config::EndpointUrl;
use http_body_util::Limited;
use tokio::sync::Mutex;

use super::errors::RESPONSE_BYTES_MAX;
use super::identity::{self, CallerIdentity};
use super::{errors, responses};
use crate::clock::Clock;
use crate::config::TargetConfig;
use crate::core::failure::{FailureReason, Operation, PollFailure};
use crate::core::job::{JobKey, ReferenceStoreId, Snapshot};
use crate::core::time::Timestamp;
use crate::healthomics::TargetError;
use crate::healthomics::service::{Connect, ConnectFuture, HealthOmics, ListPage, RequestFuture};

/// The longest time to establish a connection; the SDK's own default since behaviour version 2026-01-12.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);

/// Jobs on a page of a listing: the API's maximum.
const LIST_PAGE_JOBS: i32 = 100;

/// Connects targets through AWS's SDK.
#[derive(Clone, Copy, Debug)]
pub struct Aws {
    clock: Clock,
}

#[derive(Debug)]
struct AwsTarget {
    config: TargetConfig,
    aws_region: Arc<str>,
    connection: Mutex<Connection>,
    clock: Clock,
}

#[derive(Clone, Debug)]
struct Connection {
    sdk: SdkConfig,
    client: Client,
    /// True once the service has rejected its credentials.
    rejected: Arc<AtomicBool>,
}

/// Changes two of the SDK's defaults. A configured endpoint is used verbatim, whether it comes from our file or from AWS's own
/// (`AWS_ENDPOINT_URL`): the SDK would put `control-storage-` before its host, and that name seldom exists. And a response is read
/// up to `RESPONSE_BYTES_MAX`.
#[derive(Debug)]
pub struct WireRules;

impl Aws {
    /// `clock` is needed for a `Retry-After` that is a date.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// Reads the system's certificate authorities: hundreds of files, which the first client would read otherwise. Other start-up
    /// work can run beside it.
    pub fn read_authorities() {
        let client = aws_sdk_omics::Config::builder().behavior_version(BehaviorVersion::v2026_01_12());
        drop(Client::from_conf(client.region(Region::from_static("us-east-1")).build()));
    }
}

impl Connect for Aws {
    /// Credentials are fetched at the first request, not here.
    fn connect<'a>(&'a self, config: &'a TargetConfig) -> ConnectFuture<'a> {
        Box::pin(async move {
            let sdk = sdk_config(config).await;
            let region = sdk.region().ok_or_else(|| TargetError::NoRegion(Arc::clone(&config.name)))?;
            let aws_region = region.as_ref().into();
            let config = TargetConfig { region: Some(region.to_string()), ..config.clone() };
            let connection = Mutex::new(Connection::new(&config, sdk));
            Ok(Arc::new(AwsTarget { config, aws_region, connection, clock: self.clock }) as Arc<dyn HealthOmics>)
        })
    }
}

impl Connection {
    fn new(config: &TargetConfig, sdk: SdkConfig) -> Self {
        let client = aws_sdk_omics::config::Builder::from(&sdk);
        let mut client = client.interceptor(WireRules);
        client.set_endpoint_url(config.endpoint_url.clone().or_else(|| sdk.endpoint_url().map(str::to_owned)));
        Self { client: Client::from_conf(client.build()), sdk, rejected: Arc::default() }
    }
}

impl AwsTarget {
    async fn connection(&self) -> Connection {
        let mut connection = self.connection.lock().await;
        if connection.rejected.load(Ordering::Relaxed) {
            *connection = Connection::new(&self.config, sdk_config(&self.config).await);
        }
        connection.clone()
    }

    fn failed<E: ProvideErrorMetadata + Error + 'static>(
        &self,
        operation: Operation,
        used: &Connection,
        error: &SdkError<E, HttpResponse>,
    ) -> PollFailure {
        let failure = errors::classify(Some(operation), &self.config, error, self.clock.now().wall);
        if failure.reason == FailureReason::Credentials {
            used.rejected.store(true, Ordering::Relaxed);
        }
        failure
    }
}

impl HealthOmics for AwsTarget {
    fn aws_region(&self) -> &Arc<str> {
        &self.aws_region
    }

    fn get_reference_import_job<'a>(&'a self, key: &'a JobKey) -> RequestFuture<'a, Snapshot> {
        Box::pin(async move {
            let connection = self.connection().await;
            let request = connection.client.get_reference_import_job();
            match request.reference_store_id(key.store.as_str()).id(key.job.as_str()).send().await {
                Ok(response) => responses::snapshot(key, &response),
                Err(error) => Err(self.failed(Operation::GetReferenceImportJob, &connection, &error)),
            }
        })
    }

    fn caller_identity(&self) -> RequestFuture<'_, Option<CallerIdentity>> {
        Box::pin(async move { identity::caller_identity(&self.connection().await.sdk, &self.config, self.clock).await })
    }

    fn list_reference_import_jobs<'a>(
        &'a self,
        store: &'a ReferenceStoreId,
        created_after: Option<Timestamp>,
        token: Option<String>,
    ) -> RequestFuture<'a, ListPage> {
        Box::pin(async move {
            // Rounded down to a second: the page may contain older jobs.
            let after = created_after.map(|time| DateTime::from_secs(time.as_second()));
            let connection = self.connection().await;
            let request = connection.client.list_reference_import_jobs().reference_store_id(store.as_str());
            let request = request.max_results(LIST_PAGE_JOBS).set_next_token(token);
            let request = request.filter(ImportReferenceFilter::builder().set_created_after(after).build());
            match request.send().await {
                Ok(response) => responses::list_page(store, response),
                Err(error) => Err(self.failed(Operation::ListReferenceImportJobs, &connection, &error)),
            }
        })
    }
}

#[dyn_dispatch_hint]
impl Intercept for WireRules {
    fn name(&self) -> &'static str {
        "WireRules"
    }

    fn modify_before_serialization(
        &self,
        _: &mut BeforeSerializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if cfg.load::<EndpointUrl>().is_some() {
            cfg.interceptor_state().unset::<EndpointPrefix>();
        }
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let whole = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(Limited::new(whole, RESPONSE_BYTES_MAX));
        Ok(())
    }
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
        // AWS's chain would prefer keys in the environment to the profile.
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
