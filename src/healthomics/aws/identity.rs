//! The identity behind a target's credentials: STS's `GetCallerIdentity`, which every identity may call.

use aws_config::SdkConfig;
use aws_types::service_config::ServiceConfigKey;

use super::errors;
use crate::clock::Clock;
use crate::config::TargetConfig;
use crate::core::failure::RequestFailure;
use crate::healthomics::service::CallerIdentity;

/// Sends one request to STS. Returns `None` if HealthOmics's endpoint is not AWS's and no endpoint is set for STS: the credentials
/// may not be AWS's, so AWS's STS must not receive them.
pub(super) async fn caller_identity(
    sdk: &SdkConfig,
    config: &TargetConfig,
    clock: Clock,
) -> Result<Option<CallerIdentity>, RequestFailure> {
    let endpoint = config.endpoint_url.clone().or_else(|| sdk_endpoint(sdk, "Omics"));
    if endpoint.is_some_and(|url| !is_aws_host(&url)) && sdk_endpoint(sdk, "STS").is_none() {
        return Ok(None);
    }
    match aws_sdk_sts::Client::new(sdk).get_caller_identity().send().await {
        Ok(response) => {
            let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
            Ok(Some(CallerIdentity { arn: or_unknown(response.arn), account: or_unknown(response.account) }))
        }
        Err(error) => Err(errors::request_failure(None, config, &error, clock.now().wall)),
    }
}

/// The endpoint that the environment or the AWS profile sets for a service, or for all services.
pub(super) fn sdk_endpoint(sdk: &SdkConfig, service: &str) -> Option<String> {
    let key = ServiceConfigKey::builder().service_id(service).env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    sdk.service_config()?.load_config(key.ok()?)
}

/// True for hosts in these domains of AWS. VPC endpoints are among them.
fn is_aws_host(url: &str) -> bool {
    let host = url.parse().ok().and_then(|url: http::Uri| url.host().map(str::to_owned)).unwrap_or_default();
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"].into_iter().any(|domain| host.ends_with(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_of_aws_if_its_host_is() {
        assert!(is_aws_host("https://vpce-1-a.omics.us-west-2.vpce.amazonaws.com"));
        assert!(is_aws_host("https://omics.cn-north-1.amazonaws.com.cn:443/"));
        assert!(!is_aws_host("http://127.0.0.1:4566"));
        assert!(!is_aws_host("https://omics.amazonaws.com:p@amazonaws.com.example.org/.amazonaws.com"));
    }
}
