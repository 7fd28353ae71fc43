//! The SDK's client of one target, and its settings.
//!
//! Credentials come from AWS's own chain, or from the profile or role that the configuration names. A client caches them. If a
//! HealthOmics request fails because of its credentials, the next request builds a new client, which reads them again from their
//! source.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
use aws_sdk_omics::types::{ActivateReadSetFilter, ExportReadSetFilter, ImportReadSetFilter, ImportReferenceFilter};
use aws_smithy_runtime_api::client::endpoint::EndpointPrefix;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_types::endpoint_config::EndpointUrl;
use http_body_util::Limited;
use tokio::sync::Mutex;

use super::errors::RESPONSE_BYTES_MAX;
use super::identity::caller_identity;
use super::{errors, responses};
use crate::clock::Clock;
use crate::config::TargetConfig;
use crate::core::failure::{FailureReason, Operation, RequestFailure};
use crate::core::job::{JobKey, Snapshot, StoreId};
use crate::core::kind::JobKind;
use crate::core::time::Timestamp;
use crate::healthomics::service::{
    BuildFuture, CallerIdentity, ListPage, RequestFuture, ServiceFactory, TargetError, TargetService,
};

/// Jobs on a page of a listing: the API's maximum.
const LIST_PAGE_JOBS: i32 = 100;

/// Builds target services that use AWS's SDK.
#[derive(Clone, Copy, Debug)]
pub struct AwsFactory {
    clock: Clock,
}

#[derive(Debug)]
struct AwsService {
    config: TargetConfig,
    aws_region: Arc<str>,
    current: Mutex<SdkClient>,
    clock: Clock,
}

#[derive(Clone, Debug)]
struct SdkClient {
    sdk: SdkConfig,
    omics: Client,
    /// True once a HealthOmics request of this client has failed because of its credentials.
    credentials_failed: Arc<AtomicBool>,
}

/// An SDK interceptor that changes two defaults. A configured endpoint, including `AWS_ENDPOINT_URL`, is used verbatim: the SDK
/// would put `control-storage-` before its host. At most `RESPONSE_BYTES_MAX` of a response are read.
#[derive(Debug)]
pub struct EndpointAndSizeInterceptor;

impl AwsFactory {
    /// `clock` is compared with dates in error responses: `Date` and `Retry-After`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// Builds a client and drops it, so that the SDK caches the system's certificate authorities. Blocks: there may be hundreds of
    /// files.
    pub fn preload_certificates() {
        let settings = aws_sdk_omics::Config::builder().behavior_version(BehaviorVersion::v2026_01_12());
        drop(Client::from_conf(settings.region(Region::from_static("us-east-1")).build()));
    }
}

impl ServiceFactory for AwsFactory {
    /// Credentials are fetched at the first request, not here.
    fn build<'a>(&'a self, config: &'a TargetConfig) -> BuildFuture<'a> {
        Box::pin(async move {
            let sdk = sdk_config(config).await;
            let region = sdk.region().ok_or_else(|| TargetError::NoRegion(Arc::clone(&config.name)))?;
            let aws_region = region.as_ref().into();
            // With the resolved region: later clients keep it, and error messages name it.
            let config = TargetConfig { region: Some(region.to_string()), ..config.clone() };
            let current = Mutex::new(SdkClient::new(&config, sdk));
            Ok(Arc::new(AwsService { config, aws_region, current, clock: self.clock }) as Arc<dyn TargetService>)
        })
    }
}

impl SdkClient {
    fn new(config: &TargetConfig, sdk: SdkConfig) -> Self {
        let mut settings = aws_sdk_omics::config::Builder::from(&sdk).interceptor(EndpointAndSizeInterceptor);
        // Overrides the endpoint that the environment or the AWS profile sets.
        if config.endpoint_url.is_some() {
            settings.set_endpoint_url(config.endpoint_url.clone());
        }
        Self { omics: Client::from_conf(settings.build()), sdk, credentials_failed: Arc::default() }
    }
}

impl AwsService {
    async fn current_client(&self) -> SdkClient {
        let mut current = self.current.lock().await;
        if current.credentials_failed.load(Ordering::Relaxed) {
            *current = SdkClient::new(&self.config, sdk_config(&self.config).await);
        }
        current.clone()
    }

    /// Classifies the error. If it is about credentials, the next request uses a new client.
    fn handle_error<E: ProvideErrorMetadata + Error + 'static>(
        &self,
        operation: Operation,
        client: &SdkClient,
        error: &SdkError<E, HttpResponse>,
    ) -> RequestFailure {
        let failure = errors::classify(Some(operation), &self.config, error, self.clock.now().wall);
        if failure.reason == FailureReason::Credentials {
            client.credentials_failed.store(true, Ordering::Relaxed);
        }
        failure
    }
}

impl TargetService for AwsService {
    fn aws_region(&self) -> &Arc<str> {
        &self.aws_region
    }

    fn caller_identity(&self) -> RequestFuture<'_, Option<CallerIdentity>> {
        Box::pin(async move { caller_identity(&self.current_client().await.sdk, &self.config, self.clock).await })
    }

    fn get_job<'a>(&'a self, key: &'a JobKey) -> RequestFuture<'a, Snapshot> {
        /// Sends the `Get` request of one kind and reads the response.
        macro_rules! get {
            ($client:ident, $operation:ident, $store_id:ident, $read:path) => {{
                let request = $client.omics.$operation().$store_id(key.store.as_str()).id(key.job.as_str());
                let outcome = request.send().await;
                outcome.map_err(|error| self.handle_error(Operation::Get(key.kind), &$client, &error)).map($read)
            }};
        }
        Box::pin(async move {
            let client = self.current_client().await;
            let response = match key.kind {
                JobKind::ReferenceImport => {
                    get!(client, get_reference_import_job, reference_store_id, responses::reference_import)
                }
                JobKind::ReadSetImport => {
                    get!(client, get_read_set_import_job, sequence_store_id, responses::read_set_import)
                }
                JobKind::ReadSetExport => {
                    get!(client, get_read_set_export_job, sequence_store_id, responses::read_set_export)
                }
                JobKind::ReadSetActivation => {
                    get!(client, get_read_set_activation_job, sequence_store_id, responses::read_set_activation)
                }
            };
            responses::snapshot(key, response?)
        })
    }

    fn list_jobs<'a>(
        &'a self,
        kind: JobKind,
        store: &'a StoreId,
        created_after: Option<Timestamp>,
        token: Option<String>,
    ) -> RequestFuture<'a, ListPage> {
        // Rounded down to a second, so the page may contain older jobs.
        let after = created_after.map(|time| DateTime::from_secs(time.as_second()));
        /// Sends the `List` request of one kind and reads the response.
        macro_rules! list {
            ($client:ident, $operation:ident, $store_id:ident, $filter:ident, $read:path) => {{
                let request = $client.omics.$operation().$store_id(store.as_str()).max_results(LIST_PAGE_JOBS);
                let filter = $filter::builder().set_created_after(after).build();
                let outcome = request.set_next_token(token).filter(filter).send().await;
                outcome.map_err(|error| self.handle_error(Operation::List(kind), &$client, &error)).map($read)
            }};
        }
        Box::pin(async move {
            let client = self.current_client().await;
            let page = match kind {
                JobKind::ReferenceImport => {
                    list!(client, list_reference_import_jobs, reference_store_id, ImportReferenceFilter,
                        responses::reference_imports)
                }
                JobKind::ReadSetImport => {
                    list!(client, list_read_set_import_jobs, sequence_store_id, ImportReadSetFilter,
                        responses::read_set_imports)
                }
                JobKind::ReadSetExport => {
                    list!(client, list_read_set_export_jobs, sequence_store_id, ExportReadSetFilter,
                        responses::read_set_exports)
                }
                JobKind::ReadSetActivation => {
                    list!(client, list_read_set_activation_jobs, sequence_store_id, ActivateReadSetFilter,
                        responses::read_set_activations)
                }
            }?;
            responses::list_page(store, page)
        })
    }
}

#[dyn_dispatch_hint]
impl Intercept for EndpointAndSizeInterceptor {
    fn name(&self) -> &'static str {
        "EndpointAndSizeInterceptor"
    }

    fn modify_before_serialization(
        &self,
        _: &mut BeforeSerializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // A configured endpoint gets no `control-storage-`.
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
        let unlimited = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(Limited::new(unlimited, RESPONSE_BYTES_MAX));
        Ok(())
    }
}

async fn sdk_config(config: &TargetConfig) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .app_name(AppName::new("refwatch").unwrap_or_else(|_| unreachable!("letters only")))
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(config.timeout).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &config.profile {
        // With AWS's own chain, keys in the environment would override the profile.
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
