//! The identity behind a target's credentials: STS's `GetCallerIdentity`, which every identity may call.

use aws_config::SdkConfig;

use super::errors;
use crate::clock::Clock;
use crate::config::TargetConfig;
use crate::core::failure::PollFailure;

/// The SDK's variable for the endpoint of STS.
const STS_ENDPOINT: &str = "AWS_ENDPOINT_URL_STS";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerIdentity {
    /// The ARN of the user, or of the session of a role.
    pub arn: String,
    pub account: String,
}

/// Asks STS once. Returns `None` if the target's endpoint is not AWS's: its credentials may belong to another service, so STS must
/// not see them.
pub(super) async fn caller_identity(
    sdk: &SdkConfig,
    config: &TargetConfig,
    clock: Clock,
) -> Result<Option<CallerIdentity>, PollFailure> {
    let named = || std::env::var_os(STS_ENDPOINT).is_some_and(|url| !url.is_empty());
    if !config.endpoint_url.as_deref().is_none_or(is_of_aws) && !named() {
        return Ok(None);
    }
    match aws_sdk_sts::Client::new(sdk).get_caller_identity().send().await {
        Ok(answer) => {
            let text = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
            Ok(Some(CallerIdentity { arn: text(answer.arn), account: text(answer.account) }))
        }
        Err(error) => {
            // Without a region, a DNS error of STS does not ask whether HealthOmics is offered there.
            let config = TargetConfig { region: None, ..config.clone() };
            Err(errors::classify(None, &config, &error, clock.now().wall))
        }
    }
}

/// True for AWS's endpoints, VPC endpoints included.
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
