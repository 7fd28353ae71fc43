//! The SDK's client of one target, and its settings.
//!
//! A client caches the credentials. If a HealthOmics request fails because of its credentials, or panics, the next request builds a
//! new client, which reads them again from their source (`credentials`).

use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_sdk_omics::Client;
use aws_sdk_omics::config::http::HttpResponse;
use aws_sdk_omics::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeSerializationInterceptorContextMut,
};
use aws_sdk_omics::config::{ConfigBag, Intercept, RuntimeComponents, StalledStreamProtectionConfig};
use aws_sdk_omics::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_omics::primitives::{DateTime, SdkBody};
use aws_sdk_omics::types::ImportReferenceFilter;
use aws_smithy_runtime_api::client::endpoint::EndpointPrefix;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_types::endpoint_config::EndpointUrl;
use futures_util::FutureExt as _;
use http_body_util::Limited;
use tokio::sync::Mutex;

use super::credentials::CredentialFetcher;
use super::errors::RESPONSE_BYTES_MAX;
use super::identity::caller_identity;
use super::{environment, errors, responses, sdk_files};
use crate::clock::Clock;
use crate::config::TargetConfig;
use crate::core::failure::{FailureReason, Operation, RequestFailure};
use crate::core::job::{JobKey, ReferenceStoreId, Snapshot};
use crate::core::limits::Limit;
use crate::core::time::Timestamp;
use crate::healthomics::service::{
    BuildFuture, CallerIdentity, ListPage, RequestFuture, ServiceFactory, TargetError, TargetService,
};

/// Builds target services that use AWS's SDK.
#[derive(Clone, Copy, Debug)]
pub struct AwsFactory {
    clock: Clock,
}

#[derive(Debug)]
struct AwsService {
    config: TargetConfig,
    aws_region: Arc<str>,
    credentials: CredentialFetcher,
    current: Mutex<SdkClient>,
    clock: Clock,
}

#[derive(Clone, Debug)]
struct SdkClient {
    sdk: SdkConfig,
    omics: Client,
    /// True once a request of this client has failed because of its credentials, or has panicked.
    is_unusable: Arc<AtomicBool>,
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
            environment::check_variables(config)?;
            sdk_files::check().await?;
            let credentials = CredentialFetcher::new(config, self.clock);
            let sdk = sdk_config(config, &credentials).await;
            let region = environment::check_sdk_config(config, &sdk)?;
            let aws_region = region.as_str().into();
            // With the resolved region: later clients keep it, and error messages name it.
            let config = TargetConfig { region: Some(region), ..config.clone() };
            let current = Mutex::new(SdkClient::new(&config, sdk));
            Ok(Arc::new(AwsService { config, aws_region, credentials, current, clock: self.clock })
                as Arc<dyn TargetService>)
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
        Self { omics: Client::from_conf(settings.build()), sdk, is_unusable: Arc::default() }
    }
}

impl AwsService {
    async fn current_client(&self) -> Result<SdkClient, RequestFailure> {
        let mut current = self.current.lock().await;
        if current.is_unusable.load(Ordering::Relaxed) {
            let reason = FailureReason::Credentials;
            let unusable =
                |error: TargetError| RequestFailure { reason, message: error.to_string(), retry_after: None };
            sdk_files::check().await.map_err(unusable)?;
            *current = SdkClient::new(&self.config, sdk_config(&self.config, &self.credentials).await);
        }
        Ok(current.clone())
    }

    /// Runs a request. A panic in the SDK becomes a failure: signing panics at a control character in an access key. The next request
    /// uses a new client.
    async fn catch_panic<T>(
        &self,
        request: impl Future<Output = Result<T, RequestFailure>>,
    ) -> Result<T, RequestFailure> {
        // Unwind safe: the request is dropped with its data, and its client is replaced.
        let Ok(outcome) = AssertUnwindSafe(request).catch_unwind().await else {
            // The panic hook has logged the panic.
            self.current.lock().await.is_unusable.store(true, Ordering::Relaxed);
            return Err(errors::panicked());
        };
        outcome
    }

    /// Classifies the error. If it is about credentials, the next request uses a new client.
    fn handle_error<E: ProvideErrorMetadata + Error + 'static>(
        &self,
        operation: Operation,
        client: &SdkClient,
        error: &SdkError<E, HttpResponse>,
    ) -> RequestFailure {
        let failure = errors::classify(Some(operation), &self.config, error, self.clock.now().wall);
        if matches!(failure.reason, FailureReason::Credentials | FailureReason::CredentialsUnavailable) {
            client.is_unusable.store(true, Ordering::Relaxed);
        }
        failure
    }
}

impl TargetService for AwsService {
    fn aws_region(&self) -> &Arc<str> {
        &self.aws_region
    }

    fn caller_identity(&self) -> RequestFuture<'_, Option<CallerIdentity>> {
        let request = async { caller_identity(&self.current_client().await?.sdk, &self.config, self.clock).await };
        Box::pin(self.catch_panic(request))
    }

    fn get_reference_import_job<'a>(&'a self, key: &'a JobKey) -> RequestFuture<'a, Snapshot> {
        Box::pin(self.catch_panic(async move {
            let client = self.current_client().await?;
            let request = client.omics.get_reference_import_job();
            match request.reference_store_id(key.store.as_str()).id(key.job.as_str()).send().await {
                Ok(response) => responses::snapshot(key, &response),
                Err(error) => Err(self.handle_error(Operation::GetReferenceImportJob, &client, &error)),
            }
        }))
    }

    fn list_reference_import_jobs<'a>(
        &'a self,
        store: &'a ReferenceStoreId,
        created_after: Option<Timestamp>,
        token: Option<String>,
    ) -> RequestFuture<'a, ListPage> {
        Box::pin(self.catch_panic(async move {
            // Rounded down to a second, so the page may contain older jobs.
            let after = created_after.map(|time| DateTime::from_secs(time.as_second()));
            let client = self.current_client().await?;
            let request = client.omics.list_reference_import_jobs().reference_store_id(store.as_str());
            let request = request.set_max_results(i32::try_from(Limit::PageJobs.max()).ok()).set_next_token(token);
            let request = request.filter(ImportReferenceFilter::builder().set_created_after(after).build());
            match request.send().await {
                Ok(response) => responses::list_page(store, &response),
                Err(error) => {
                    let response = error.raw_response().filter(|response| response.status().is_success());
                    let body = response.and_then(|response| response.body().bytes());
                    let page = body.and_then(|body| responses::rejected_list_page(store, body));
                    page.unwrap_or_else(|| Err(self.handle_error(Operation::ListReferenceImportJobs, &client, &error)))
                }
            }
        }))
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

async fn sdk_config(config: &TargetConfig, credentials: &CredentialFetcher) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .app_name(AppName::new("refwatch").unwrap_or_else(|_| unreachable!("letters only")))
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(config.timeout).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &config.profile {
        loader = loader.profile_name(profile);
    }
    let sdk = loader.load().await;
    credentials.add_credentials(config, sdk).await
}
