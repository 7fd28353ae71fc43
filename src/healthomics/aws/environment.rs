//! Checks the values that the SDK reads from the environment and the AWS profile. If refwatch's configuration file has the same setting,
//! its rule applies.
//!
//! The SDK uses a value as it is: with a line end in `AWS_REGION`, no request could be sent. `credentials` checks access keys after
//! each fetch. A message never quotes a value, because a URL may contain a password.

use std::env;

use aws_config::SdkConfig;
use http::Uri;
use http::uri::PathAndQuery;

use super::identity::sdk_endpoint;
use crate::config::{TargetConfig, parse_endpoint_url, parse_profile_name, parse_region, parse_role_arn};
use crate::healthomics::service::TargetError;

/// Checks a value. The error is the rule that it violates, such as "must be true or false".
type Check = fn(&str) -> Result<(), String>;

/// Variables that the SDK may use for any target.
const VARIABLES: [(&str, Check); 18] = [
    ("AWS_ENDPOINT_URL", check_endpoint),
    ("AWS_ENDPOINT_URL_OMICS", check_endpoint),
    ("AWS_ENDPOINT_URL_STS", check_endpoint),
    ("AWS_ENDPOINT_URL_SSO", check_endpoint),
    ("AWS_ENDPOINT_URL_SSO_OIDC", check_endpoint),
    ("AWS_EC2_METADATA_SERVICE_ENDPOINT", check_endpoint),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", check_credentials_uri),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", check_path),
    ("AWS_EC2_METADATA_DISABLED", check_boolean),
    ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", check_boolean),
    ("AWS_USE_DUALSTACK_ENDPOINT", check_boolean),
    ("AWS_USE_FIPS_ENDPOINT", check_boolean),
    ("AWS_PROFILE", |text| parse_profile_name(text).and_then(|name| check_bare_text(&name))),
    ("AWS_ROLE_ARN", |text| parse_role_arn(text).map(drop)),
    ("AWS_CONFIG_FILE", check_bare_text),
    ("AWS_SHARED_CREDENTIALS_FILE", check_bare_text),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", check_bare_text),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", check_bare_text),
];

/// Checks the variables that the SDK uses for this target.
///
/// # Errors
/// A variable violates its rule.
pub(super) fn check_variables(target: &TargetConfig) -> Result<(), TargetError> {
    // A simulated target has fixed keys, and the endpoint of refwatch's own simulator. So credentials and endpoints in variables do not
    // matter.
    if target.simulated {
        return Ok(());
    }
    // The SDK reads AWS_DEFAULT_REGION only without AWS_REGION, and neither if the target has a region.
    let used = ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find(|name| env::var_os(name).is_some());
    let region_variable = used.filter(|_| target.region.is_none()).map(|name| (name, check_region as Check));
    for (name, check) in VARIABLES.into_iter().chain(region_variable) {
        let Some(value) = env::var_os(name) else { continue };
        let checked = value.to_str().ok_or_else(|| "must be UTF-8".to_owned()).and_then(check);
        checked.map_err(|rule| TargetError::Invalid(format!("the variable {name} {rule}, or not be set")))?;
    }
    Ok(())
}

/// Checks the endpoints and the region that the SDK has found, and returns the region. [`check_variables`] comes first, so an invalid value
/// is that of the AWS profile or, for the region, of the instance. A simulated target uses no endpoint of the profile.
///
/// # Errors
/// There is no region, or a value violates its rule.
pub(super) fn check_profile_and_get_region(target: &TargetConfig, sdk: &SdkConfig) -> Result<String, TargetError> {
    let services: &[&str] = if target.simulated { &[] } else { &["Omics", "STS"] };
    for url in services.iter().filter_map(|service| sdk_endpoint(sdk, service)) {
        check_endpoint(&url)
            .map_err(|rule| TargetError::Invalid(format!("`endpoint_url` of the AWS profile {rule}")))?;
    }
    let region = sdk.region().ok_or_else(|| TargetError::NoRegion(target.name.clone()))?;
    let invalid = |rule| TargetError::Invalid(format!("the region of the AWS profile or of the instance {rule}"));
    parse_region(region.as_ref()).map_err(invalid)
}

fn check_endpoint(text: &str) -> Result<(), String> {
    parse_endpoint_url(text).map(drop)
}

fn check_region(text: &str) -> Result<(), String> {
    parse_region(text).map(drop)
}

fn check_boolean(text: &str) -> Result<(), String> {
    let is_boolean = text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false");
    require(is_boolean, "must be true or false")
}

/// Accepts a URL that, unlike an endpoint, may have a query.
fn check_credentials_uri(text: &str) -> Result<(), String> {
    let uri: Option<Uri> = text.parse().ok();
    let is_http = uri.is_some_and(|uri| {
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        matches!(uri.scheme_str(), Some("http" | "https")) && has_host
    });
    require(
        is_http && !text.contains('@'),
        "must be a URL such as \"http://127.0.0.1/credentials\", without user name and password",
    )
}

fn check_path(text: &str) -> Result<(), String> {
    let is_path = text.starts_with('/') && text.parse::<PathAndQuery>().is_ok();
    require(is_path, "must be a path such as /v2/credentials/ID")
}

/// Rejects the quotes and the white space that an environment file or a shell may have added.
fn check_bare_text(text: &str) -> Result<(), String> {
    let is_bare = !text.is_empty() && text.trim() == text && !text.starts_with(['"', '\'']);
    let rule = "must be text without control characters, and without white space or quotes around it";
    require(is_bare && !text.contains(char::is_control), rule)
}

fn require(holds: bool, rule: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}
