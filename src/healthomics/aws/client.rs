//! The SDK's client of one target, and its settings.
//!
//! A client caches the credentials. A client becomes unusable if a HealthOmics request gets no credentials, or if AWS rejects them, or if
//! any request panics, including one to STS. The next request then builds a new client, which reads the credentials again from their source
//! (`credentials`).

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
use aws_sdk_omics::types::{ActivateReadSetFilter, ExportReadSetFilter, ImportReadSetFilter, ImportReferenceFilter};
use aws_smithy_runtime_api::client::endpoint::EndpointPrefix;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_types::endpoint_config::EndpointUrl;
use futures_util::FutureExt as _;
use http_body_util::Limited;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::credentials::{CredentialFailure, CredentialFetcher};
use super::errors::RESPONSE_BYTES_MAX;
use super::identity;
use super::{environment, errors, responses, sdk_files};
use crate::clock::Clock;
use crate::config::TargetConfig;
use crate::core::failure::{FailureReason, Operation, RequestFailure};
use crate::core::job::{JobKey, Snapshot, StoreId};
use crate::core::kind::JobKind;
use crate::core::limits::Limit;
use crate::core::time::Timestamp;
use crate::healthomics::service::{
    BuildFuture, CallerIdentity, ListPage, RequestFuture, ServiceFactory, TargetError, TargetService,
};

const NO_AUTHORITIES: &str = "this machine has no valid certificate authority: install the package ca-certificates, or correct \
    SSL_CERT_FILE and SSL_CERT_DIR";

/// Builds target services that use AWS's SDK.
#[derive(Clone, Copy, Debug)]
pub struct AwsFactory {
    clock: Clock,
}

#[derive(Debug)]
struct AwsService {
    config: TargetConfig,
    aws_region: Arc<str>,
    credential_fetcher: CredentialFetcher,
    current: Mutex<SdkClient>,
    clock: Clock,
}

#[derive(Clone, Debug)]
struct SdkClient {
    /// For the client of STS.
    sdk_config: SdkConfig,
    omics: Client,
    /// True once a request of this client has failed because of its credentials, or has panicked.
    is_unusable: Arc<AtomicBool>,
}

/// An SDK interceptor that changes two defaults. A configured endpoint, including `AWS_ENDPOINT_URL`, is used verbatim: the SDK
/// would put `control-storage-` before its host. At most `RESPONSE_BYTES_MAX` of a response are read.
#[derive(Debug)]
pub struct VerbatimEndpointAndSizeLimit;

impl AwsFactory {
    /// The time of `clock` is compared with dates in error responses (`Date` and `Retry-After`). `clock` also measures the deadline of a
    /// fetch of credentials, and how long its failure is used again (see `credentials`).
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// Makes the SDK load the certificate authorities of the system, which it does at the first client and then caches. Blocks: there
    /// may be hundreds of files. Panics if none is valid.
    fn load_certificates() {
        let settings = aws_sdk_omics::Config::builder().behavior_version(BehaviorVersion::v2026_01_12());
        drop(Client::from_conf(settings.region(Region::from_static("us-east-1")).build()));
    }
}

impl ServiceFactory for AwsFactory {
    /// Reads two kinds of credentials: access keys in environment variables, and access keys of a profile that another profile names as its
    /// `source_profile`. All other credentials, also access keys of the selected profile, are fetched at the first request: by refwatch
    /// from a credential process, otherwise by the SDK.
    fn build<'a>(&'a self, config: &'a TargetConfig) -> BuildFuture<'a> {
        Box::pin(async move {
            environment::check_variables(config)?;
            // `None`: the token file of a profile is checked at each fetch.
            sdk_files::check(None).await?;
            let loaded = spawn_blocking(Self::load_certificates).await;
            // A panic means that no certificate is valid.
            loaded.map_err(|_| TargetError::Invalid(NO_AUTHORITIES.to_owned()))?;
            let credential_fetcher = CredentialFetcher::new(config, self.clock);
            let sdk_config = load_sdk_config(config, &credential_fetcher).await;
            let region = environment::check_profile_and_get_region(config, &sdk_config)?;
            let aws_region = region.as_str().into();
            // With the resolved region: later clients keep it, and error messages name it.
            let config = TargetConfig { region: Some(region), ..config.clone() };
            let current = Mutex::new(SdkClient::new(&config, sdk_config));
            Ok(Arc::new(AwsService { config, aws_region, credential_fetcher, current, clock: self.clock })
                as Arc<dyn TargetService>)
        })
    }
}

impl SdkClient {
    fn new(config: &TargetConfig, sdk_config: SdkConfig) -> Self {
        let mut settings = aws_sdk_omics::config::Builder::from(&sdk_config).interceptor(VerbatimEndpointAndSizeLimit);
        // Overrides the endpoint that the environment or the AWS profile sets.
        if config.endpoint_url.is_some() {
            settings.set_endpoint_url(config.endpoint_url.clone());
        }
        Self { omics: Client::from_conf(settings.build()), sdk_config, is_unusable: Arc::default() }
    }
}

impl AwsService {
    async fn current_client(&self) -> Result<SdkClient, RequestFailure> {
        let mut current = self.current.lock().await;
        if current.is_unusable.load(Ordering::Relaxed) {
            sdk_files::check(None).await.map_err(|error| {
                let CredentialFailure { reason, message } = CredentialFailure::from_files_error(&error);
                RequestFailure { reason, message, retry_after: None }
            })?;
            // In a box, because this future is larger than a request and rarely runs. Every request would have memory for it.
            let sdk_config = Box::pin(load_sdk_config(&self.config, &self.credential_fetcher)).await;
            *current = SdkClient::new(&self.config, sdk_config);
        }
        Ok(current.clone())
    }

    /// Runs a request. A panic in the SDK becomes a failure, and the next request uses a new client.
    fn catch_panic<'a, T: Send + 'a>(
        &'a self,
        request: impl Future<Output = Result<T, RequestFailure>> + Send + 'a,
    ) -> RequestFuture<'a, T> {
        // Unwind safe: the request is dropped with its data, and the current client is replaced.
        let outcome = AssertUnwindSafe(request).catch_unwind();
        // `then`, because an async block would have memory for the request twice.
        Box::pin(outcome.then(async |outcome| {
            if let Ok(outcome) = outcome {
                return outcome;
            }
            // The panic hook has logged the panic.
            self.current.lock().await.is_unusable.store(true, Ordering::Relaxed);
            Err(errors::panicked())
        }))
    }

    /// Classifies the error. If it is about credentials, the next request uses a new client.
    fn handle_error<E: ProvideErrorMetadata + Error + 'static>(
        &self,
        operation: Operation,
        client: &SdkClient,
        error: &SdkError<E, HttpResponse>,
    ) -> RequestFailure {
        let failure = errors::request_failure(Some(operation), &self.config, error, self.clock.now().wall);
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
        let request = async {
            identity::caller_identity(&self.current_client().await?.sdk_config, &self.config, self.clock).await
        };
        self.catch_panic(request)
    }

    fn get_job<'a>(&'a self, key: &'a JobKey) -> RequestFuture<'a, Snapshot> {
        self.catch_panic(async move {
            let client = self.current_client().await?;
            /// Sends the `Get` request of one kind and reads the response.
            macro_rules! get {
                ($operation:ident, $store_id:ident, $read:ident) => {{
                    let request = client.omics.$operation().$store_id(key.store.as_str()).id(key.job.as_str());
                    let failure = |error| self.handle_error(Operation::Get(key.kind), &client, &error);
                    request.send().await.map_err(failure).map(responses::$read)
                }};
            }
            let response = match key.kind {
                JobKind::ReferenceImport => get!(get_reference_import_job, reference_store_id, reference_import_detail),
                JobKind::ReadSetImport => get!(get_read_set_import_job, sequence_store_id, read_set_import_detail),
                JobKind::ReadSetExport => get!(get_read_set_export_job, sequence_store_id, read_set_export_detail),
                JobKind::ReadSetActivation => {
                    get!(get_read_set_activation_job, sequence_store_id, read_set_activation_detail)
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
        self.catch_panic(async move {
            let client = self.current_client().await?;
            /// Sends the `List` request of one kind and reads the response.
            macro_rules! list {
                ($operation:ident, $store_id:ident, $filter:ident, $read:ident) => {{
                    let request = client.omics.$operation().$store_id(store.as_str()).set_next_token(token);
                    let request = request.set_max_results(i32::try_from(Limit::PageJobs.max()).ok());
                    let filter = $filter::builder().set_created_after(after).build();
                    request.filter(filter).send().await.map(responses::$read).or_else(|error| {
                        // The SDK rejects the whole page if one job is malformed. `lenient_page` reads the other jobs.
                        let response = error.raw_response().filter(|response| response.status().is_success());
                        let body = response.and_then(|response| response.body().bytes());
                        let lenient_page = body.and_then(|body| responses::lenient_page(kind, body));
                        lenient_page.ok_or_else(|| self.handle_error(Operation::List(kind), &client, &error))
                    })
                }};
            }
            let unchecked_page = match kind {
                JobKind::ReferenceImport => list! {
                    list_reference_import_jobs, reference_store_id, ImportReferenceFilter, reference_import_page
                },
                JobKind::ReadSetImport => list! {
                    list_read_set_import_jobs, sequence_store_id, ImportReadSetFilter, read_set_import_page
                },
                JobKind::ReadSetExport => list! {
                    list_read_set_export_jobs, sequence_store_id, ExportReadSetFilter, read_set_export_page
                },
                JobKind::ReadSetActivation => list! {
                    list_read_set_activation_jobs, sequence_store_id, ActivateReadSetFilter, read_set_activation_page
                },
            }?;
            responses::checked_page(store, unchecked_page)
        })
    }
}

#[dyn_dispatch_hint]
impl Intercept for VerbatimEndpointAndSizeLimit {
    fn name(&self) -> &'static str {
        "VerbatimEndpointAndSizeLimit"
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

async fn load_sdk_config(config: &TargetConfig, credential_fetcher: &CredentialFetcher) -> SdkConfig {
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
    credential_fetcher.with_credentials_provider(config, sdk).await
}
