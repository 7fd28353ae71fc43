//! The identity behind a target's credentials: STS's `GetCallerIdentity`, which every identity may call.

use aws_config::SdkConfig;

use super::errors;
use crate::clock::Clock;
use crate::config::TargetConfig;
use crate::core::failure::PollFailure;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerIdentity {
    /// The ARN of the user, or of the session of a role.
    pub arn: String,
    pub account: String,
}

/// Sends one request to STS. Returns `None` if `endpoint_url` or `AWS_ENDPOINT_URL_OMICS` names a custom endpoint and
/// `AWS_ENDPOINT_URL_STS` is not set: the credentials may belong to another service, so AWS's STS must not receive them.
pub(super) async fn caller_identity(
    sdk: &SdkConfig,
    config: &TargetConfig,
    clock: Clock,
) -> Result<Option<CallerIdentity>, PollFailure> {
    // `AWS_ENDPOINT_URL` needs no check: it applies to STS too.
    let variable = |name| std::env::var(name).ok().filter(|url| !url.is_empty());
    let endpoint = config.endpoint_url.clone().or_else(|| variable("AWS_ENDPOINT_URL_OMICS"));
    let custom_endpoint = endpoint.is_some_and(|url| !is_of_aws(&url));
    if custom_endpoint && variable("AWS_ENDPOINT_URL_STS").is_none() {
        return Ok(None);
    }
    match aws_sdk_sts::Client::new(sdk).get_caller_identity().send().await {
        Ok(response) => {
            let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
            Ok(Some(CallerIdentity { arn: or_unknown(response.arn), account: or_unknown(response.account) }))
        }
        Err(error) => {
            // Without a region, the message of a DNS error gives no hint about HealthOmics's regions.
            let config = TargetConfig { region: None, ..config.clone() };
            Err(errors::classify(None, &config, &error, clock.now().wall))
        }
    }
}

/// True for the endpoints of AWS, including VPC endpoints.
fn is_of_aws(url: &str) -> bool {
    let host = url.split('/').nth(2).and_then(|authority| authority.split(':').next()).unwrap_or_default();
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"].into_iter().any(|domain| host.ends_with(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sts_is_requested_only_if_the_endpoint_is_an_aws_endpoint() {
        assert!(is_of_aws("https://vpce-1-a.omics.us-west-2.vpce.amazonaws.com"));
        assert!(is_of_aws("https://omics.cn-north-1.amazonaws.com.cn:443/"));
        assert!(!is_of_aws("http://127.0.0.1:4566"));
        assert!(!is_of_aws("https://amazonaws.com.example.org/.amazonaws.com"));
    }
}
