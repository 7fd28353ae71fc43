//! The credentials of a target. With a configured profile: from that profile. Otherwise: from keys in the environment, from the profile
//! that the environment selects or the default one, or from the rest of AWS's chain (web identity, container, instance). refwatch itself
//! looks for keys in the environment, follows the profiles and runs credential processes. The SDK does the rest. A configured role is then
//! assumed with the result.
//!
//! At most one fetch runs at a time for a target, also if its SDK client has been replaced. A fetch ends before the timeout of the request:
//! the error of that timeout would not name the source that does not respond. The SDK caches the credentials; this module does not.

mod classify;
mod failure;
mod process;
mod profiles;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_credential_types::Credentials;
use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use tokio::sync::Mutex;
use tokio::time::timeout;

use self::classify::{SourceInfo, classify};
pub(super) use self::failure::CredentialFailure;
use self::failure::{CredentialProblem, FILES_SOURCE_NAME};
use self::profiles::{Base, ProfileSource, Role};
use crate::clock::Clock;
use crate::config::TargetConfig;
use crate::core::time::Monotonic;
use crate::healthomics::aws::sdk_files;

/// The session name of an assumed role, unless the profile sets one.
const SESSION_NAME: &str = "refwatch";

/// A fetch that takes longer than this part of `poll.timeout` fails.
const DEADLINE_FRACTION: f64 = 0.9;

/// A call within this time after a failed fetch gets the same failure without a new fetch. So does a call that was waiting for that fetch.
const FAILURE_REUSE_MAX: Duration = Duration::from_millis(100);

/// Fetches the credentials of one target, for all its clients: one fetch at a time, with a deadline.
#[derive(Clone, Debug)]
pub(super) struct CredentialFetcher {
    clock: Clock,
    deadline: Duration,
    /// The failure of the last fetch and its time. The lock is held during a fetch, so that one runs at a time.
    last_failure: Arc<Mutex<Option<(Monotonic, CredentialFailure)>>>,
}

/// The provider in the SDK's configuration: fetches from `source` through `fetcher`.
#[derive(Debug)]
struct FetchingProvider {
    fetcher: CredentialFetcher,
    source: CredentialSource,
}

/// A place from which credentials come, such as STS, SSO, a metadata service, a credential process, a file or the environment. For a role
/// that refwatch adds (`role_source`), `provider` is the SDK's `AssumeRoleProvider`. It contains another `CredentialSource`, with whose
/// credentials the role is assumed. Therefore `CredentialSource` implements the SDK's `ProvideCredentials`. If the inner source fails, the
/// error of the role contains the inner source's [`CredentialFailure`]. `classify` finds and reports that failure.
#[derive(Debug)]
struct CredentialSource {
    /// For messages and `classify`.
    info: SourceInfo,
    provider: SharedCredentialsProvider,
    /// The token file that the profile names, for `sdk_files::check`.
    token_file: Option<PathBuf>,
}

impl CredentialFetcher {
    pub(super) fn new(config: &TargetConfig, clock: Clock) -> Self {
        Self { clock, deadline: config.timeout.mul_f64(DEADLINE_FRACTION), last_failure: Arc::default() }
    }

    /// Returns `sdk` with a provider of the credentials that `config` asks for. Access keys in environment variables and in a source
    /// profile are read now, all others at the first request.
    pub(super) async fn with_credentials_provider(&self, config: &TargetConfig, sdk: SdkConfig) -> SdkConfig {
        let mut source = source_without_configured_role(config, &sdk).await;
        if let Some(arn) = config.role_arn.clone() {
            source =
                role_source(source, Role { arn, external_id: config.external_id.clone(), session_name: None }, &sdk)
                    .await;
        }
        let provider = SharedCredentialsProvider::new(FetchingProvider { fetcher: self.clone(), source });
        sdk.into_builder().credentials_provider(provider).build()
    }

    async fn fetch(&self, source: &CredentialSource) -> Result<Credentials, CredentialFailure> {
        let called_at = self.clock.now().monotonic;
        let detail = format!("none within {:?}", self.deadline);
        let timed_out = || CredentialFailure::new(CredentialProblem::TimedOut, &source.info.name, &detail);
        let Ok(mut last_failure) = timeout(self.deadline, self.last_failure.lock()).await else {
            return Err(timed_out());
        };
        // `called_at.since(failed_at)` is zero if this call was already waiting when the fetch failed.
        if let Some((failed_at, failure)) = &*last_failure
            && called_at.since(*failed_at) < FAILURE_REUSE_MAX
        {
            return Err(failure.clone());
        }
        let remaining = self.deadline.saturating_sub(self.clock.now().monotonic.since(called_at));
        let result = timeout(remaining, source.fetch()).await.unwrap_or_else(|_| Err(timed_out()));
        *last_failure = result.as_ref().err().map(|failure| (self.clock.now().monotonic, failure.clone()));
        result
    }
}

/// The source of the target's credentials, including roles of profiles. The caller adds the configured role.
async fn source_without_configured_role(config: &TargetConfig, sdk: &SdkConfig) -> CredentialSource {
    // A simulated target sends its requests to refwatch's own simulator, which accepts any keys.
    if config.simulated {
        let keys = Credentials::new("simulated", "simulated", None, None, "simulated");
        return CredentialSource::new("the simulator".to_owned(), keys);
    }
    // As in AWS's chain, keys in the environment override the profile, unless the target names one.
    if config.profile.is_none()
        && let Ok(keys) = EnvironmentVariableCredentialsProvider::new().provide_credentials().await
    {
        return CredentialSource::new(
            "the environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned(),
            keys,
        );
    }
    let (mut source, roles) = match profiles::resolve(config.profile.as_deref()).await {
        Ok(Some(ProfileSource { base, roles })) => {
            let source = match base {
                Base::Process(process) => CredentialSource::new(process.name(), process),
                Base::SourceProfileKeys { profile, keys } => {
                    CredentialSource::new(format!("profile \"{profile}\""), keys)
                }
                Base::Sdk { profile, info, token_file } => {
                    CredentialSource { info, provider: profile_provider(&profile, sdk), token_file }
                }
            };
            (source, roles)
        }
        Ok(None) => (fallback_source(config, sdk), Vec::new()),
        Err(reason) => {
            // Reported at the first request, like every other failure of credentials.
            let failing = move || {
                let error = CredentialsError::invalid_configuration(reason.clone());
                async { Err(error) }
            };
            (CredentialSource::new(FILES_SOURCE_NAME.to_owned(), provide_credentials_fn(failing)), Vec::new())
        }
    };
    for role in roles {
        source = role_source(source, role, sdk).await;
    }
    source
}

/// The source if `profiles` found no credentials. If no profile is configured: AWS's own chain. If one is: the SDK's provider for that
/// profile, which fails with an error that says why.
fn fallback_source(config: &TargetConfig, sdk: &SdkConfig) -> CredentialSource {
    match (&config.profile, sdk.credentials_provider()) {
        (None, Some(provider)) => {
            // If the chain uses a web identity token, the SDK assumes this role with it.
            let role_arn = std::env::var("AWS_ROLE_ARN").ok();
            let info = SourceInfo { name: "AWS's credential chain".to_owned(), role_arn, sso_profile: None };
            CredentialSource { info, provider, token_file: None }
        }
        (profile, _) => {
            let profile = profile.as_deref().unwrap_or("default");
            CredentialSource::new(format!("profile \"{profile}\""), profile_provider(profile, sdk))
        }
    }
}

/// The SDK's provider, with the settings of `sdk`.
fn profile_provider(profile: &str, sdk: &SdkConfig) -> SharedCredentialsProvider {
    let mut config = ProviderConfig::without_region()
        .with_region(sdk.region().cloned())
        .with_retry_config(RetryConfig::disabled())
        .with_use_fips(sdk.use_fips())
        .with_use_dual_stack(sdk.use_dual_stack());
    if let Some(timeouts) = sdk.timeout_config() {
        config = config.with_timeout_config(timeouts.clone());
    }
    let provider = ProfileFileCredentialsProvider::builder().profile_name(profile).configure(&config).build();
    SharedCredentialsProvider::new(provider)
}

/// The source that assumes `role` with the credentials of `source`.
async fn role_source(source: CredentialSource, role: Role, sdk: &SdkConfig) -> CredentialSource {
    let name = format!("sts:AssumeRole on {} with {}", role.arn, source.info.name);
    let info = SourceInfo { name, role_arn: Some(role.arn.clone()), sso_profile: None };
    let session_name = role.session_name.unwrap_or_else(|| SESSION_NAME.to_owned());
    let mut assumed = AssumeRoleProvider::builder(role.arn).configure(sdk).session_name(session_name);
    if let Some(external_id) = role.external_id {
        assumed = assumed.external_id(external_id.expose());
    }
    let provider = SharedCredentialsProvider::new(assumed.build_from_provider(source).await);
    // `source` checks its own token file.
    CredentialSource { info, provider, token_file: None }
}

impl CredentialSource {
    fn new(name: String, provider: impl ProvideCredentials + 'static) -> Self {
        let provider = SharedCredentialsProvider::new(provider);
        Self { info: SourceInfo { name, ..SourceInfo::default() }, provider, token_file: None }
    }

    async fn fetch(&self) -> Result<Credentials, CredentialFailure> {
        // The SDK reads its files with blocking calls.
        sdk_files::check(self.token_file.clone()).await.map_err(|error| CredentialFailure::from_files_error(&error))?;
        let credentials = self.provider.provide_credentials().await.map_err(|error| classify(&self.info, &error))?;
        self.trim_and_check(&credentials)
    }

    /// Removes the white space around each part: files and secrets often end with a line end. Rejects an empty key, and any part
    /// with a character that is not printable ASCII, because it cannot be sent. An empty session token counts as none.
    fn trim_and_check(&self, credentials: &Credentials) -> Result<Credentials, CredentialFailure> {
        let key = credentials.access_key_id().trim();
        let secret = credentials.secret_access_key().trim();
        let token = credentials.session_token().map(str::trim).filter(|token| !token.is_empty());
        for (part, text) in
            [("access key id", Some(key)), ("secret access key", Some(secret)), ("session token", token)]
        {
            if text.is_some_and(|text| text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic())) {
                let detail = format!("the {part} is empty, or contains a character that is not printable ASCII");
                return Err(CredentialFailure::new(CredentialProblem::Misconfigured, &self.info.name, &detail));
            }
        }
        let mut trimmed = Credentials::builder().access_key_id(key).secret_access_key(secret).provider_name("refwatch");
        trimmed.set_session_token(token.map(str::to_owned));
        trimmed.set_expiry(credentials.expiry());
        trimmed.set_account_id(credentials.account_id().cloned());
        Ok(trimmed.build())
    }
}

impl ProvideCredentials for CredentialSource {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async { self.fetch().await.map_err(CredentialsError::provider_error) })
    }
}

impl ProvideCredentials for FetchingProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let fetch = self.fetcher.fetch(&self.source);
        future::ProvideCredentials::new(async { fetch.await.map_err(CredentialsError::provider_error) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_keys_is_removed_and_other_invalid_characters_are_reported() {
        let source =
            CredentialSource::new("profile \"a\"".to_owned(), Credentials::new("AKID", "secret", None, None, "test"));
        let trimmed = |key: &str, secret: &str, token: &str| -> Result<String, String> {
            let keys = Credentials::new(key, secret, Some(token.to_owned()), None, "test");
            let trimmed = source.trim_and_check(&keys).map_err(|failure| failure.message)?;
            Ok([trimmed.access_key_id(), trimmed.secret_access_key(), trimmed.session_token().unwrap_or("none")]
                .join(" "))
        };
        assert_eq!(trimmed("AKID\r\n", "\tsecret\n", " "), Ok("AKID secret none".to_owned()));
        for (keys, part) in [
            (["", "secret", "token"], "access key id"),
            (["AKID\nAKID", "secret", "token"], "access key id"),
            (["AKID", "sec ret", "token"], "secret access key"),
            (["AKID", "secret", "tökèn"], "session token"),
        ] {
            let message = trimmed(keys[0], keys[1], keys[2]).expect_err("an error");
            let expected = format!("cannot get credentials: profile \"a\": wrong configuration: the {part} is empty");
            assert!(message.starts_with(&expected), "{message}");
        }
    }
}
