//! Finds the problem behind a source's error: by the types of the SDK's errors and by AWS's error codes, never by the texts of errors.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_omics::config::http::HttpResponse;
use aws_sdk_omics::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sso::operation::get_role_credentials::GetRoleCredentialsError;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use aws_smithy_runtime_api::client::result::ConnectorError;

use super::failure::{CredentialFailure, CredentialProblem};
use crate::core::failure::FailureReason;
use crate::healthomics::aws::errors::{
    causes, chain_contains, chain_text, code_and_message, reason_of_code, reason_of_status, unexpected_body_message,
};

/// Describes a source: for error messages, and whether its errors may come from SSO.
#[derive(Clone, Debug, Default)]
pub(super) struct SourceInfo {
    /// Such as `profile "lab"`.
    pub(super) name: String,
    /// The role that the SDK assumes for this source.
    pub(super) role_arn: Option<String>,
    /// The profile, if the SDK fetches its credentials from SSO.
    pub(super) sso_profile: Option<String>,
}

/// A failed request of the SDK, to an AWS service or to the credentials endpoint of a container. `failed_call` recognizes it by the type of
/// an error, if that type is public in the SDK.
struct FailedCall {
    problem: CredentialProblem,
    /// The action of AWS's API that failed; `None` for the endpoint of a container.
    action: Option<&'static str>,
    /// The code and the message of AWS's response.
    response: Option<String>,
}

pub(super) fn classify(source: &SourceInfo, error: &CredentialsError) -> CredentialFailure {
    // The error of a role may come from the source with which the role is assumed. The failure of that source is then reported.
    if let Some(failure) = causes(error).find_map(|error| error.downcast_ref::<CredentialFailure>()) {
        return failure.clone();
    }
    let call = causes(error).find_map(failed_call);
    let problem = match (error, &call) {
        (CredentialsError::CredentialsNotLoaded(_), _) => CredentialProblem::NoSource,
        (CredentialsError::InvalidConfiguration(_), _) => CredentialProblem::Misconfigured,
        (CredentialsError::ProviderTimedOut(_), _) => CredentialProblem::TimedOut,
        (_, Some(call)) => call.problem,
        _ if chain_contains::<ConnectorError>(error) => CredentialProblem::Unreachable,
        // The cached token is missing or has expired. The SDK's errors for that are private.
        _ if source.sso_profile.is_some() => CredentialProblem::Rejected,
        // A file, such as the token of a web identity.
        _ if chain_contains::<std::io::Error>(error) => CredentialProblem::Misconfigured,
        _ => CredentialProblem::Unavailable,
    };
    let detail = call.as_ref().and_then(|call| call.response.clone()).unwrap_or_else(|| chain_text(error));
    let name = match (call.as_ref().and_then(|call| call.action), &source.role_arn) {
        (None, _) => source.name.clone(),
        // A source may call SSO and then STS: AWS allows a profile to be its own `source_profile`. The SDK then gets credentials by the SSO
        // settings of the profile, and assumes its `role_arn` with them. So only an action of STS is about `role_arn`.
        (Some(action), Some(role)) if action.starts_with("sts:") => format!("{action} on {role}"),
        (Some(action), _) => format!("{action} for {}", source.name),
    };
    match &source.sso_profile {
        Some(profile) if problem == CredentialProblem::Rejected => {
            let remedy = format!("run `aws sso login --profile {profile}`");
            CredentialFailure::with_remedy(problem, &name, &detail, &remedy)
        }
        _ => CredentialFailure::new(problem, &name, &detail),
    }
}

fn failed_call(error: &(dyn Error + 'static)) -> Option<FailedCall> {
    failed_call_of::<AssumeRoleError>(error, "sts:AssumeRole")
        .or_else(|| failed_call_of::<AssumeRoleWithWebIdentityError>(error, "sts:AssumeRoleWithWebIdentity"))
        .or_else(|| failed_call_of::<GetRoleCredentialsError>(error, "sso:GetRoleCredentials"))
        .or_else(|| {
            // The SDK's error if the credentials endpoint of a container does not respond.
            let SdkError::TimeoutError(_) = error.downcast_ref::<SdkError<CredentialsError, HttpResponse>>()? else {
                return None;
            };
            Some(FailedCall { problem: CredentialProblem::TimedOut, action: None, response: None })
        })
}

/// The failed call of the operation whose error type is `E`.
fn failed_call_of<E: ProvideErrorMetadata + Error + 'static>(
    error: &(dyn Error + 'static),
    action: &'static str,
) -> Option<FailedCall> {
    let (problem, response) = match error.downcast_ref::<SdkError<E, HttpResponse>>()? {
        SdkError::TimeoutError(_) => (CredentialProblem::TimedOut, None),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => (CredentialProblem::TimedOut, None),
        SdkError::DispatchFailure(_) => (CredentialProblem::Unreachable, None),
        SdkError::ConstructionFailure(_) => (CredentialProblem::Misconfigured, None),
        SdkError::ServiceError(context) => {
            let code = context.err().code();
            let unexpected = || unexpected_body_message(context.raw());
            let response = code.map_or_else(unexpected, |code| code_and_message(code, context.err()));
            (problem_of_response(code, context.raw()), Some(response))
        }
        SdkError::ResponseError(context) => {
            (problem_of_response(None, context.raw()), Some(unexpected_body_message(context.raw())))
        }
        _ => (CredentialProblem::Unavailable, None),
    };
    Some(FailedCall { problem, action: Some(action), response })
}

fn problem_of_response(code: Option<&str>, response: &HttpResponse) -> CredentialProblem {
    match code {
        Some("IDPCommunicationError") => return CredentialProblem::Unavailable,
        Some("IDPRejectedClaim") => return CredentialProblem::Denied,
        // STS: the token is invalid. SSO: the session has ended.
        Some("InvalidIdentityToken" | "UnauthorizedException") => return CredentialProblem::Rejected,
        Some("RegionDisabledException") => return CredentialProblem::Misconfigured,
        _ => {}
    }
    match code.and_then(reason_of_code).unwrap_or_else(|| reason_of_status(response)) {
        FailureReason::Throttled => CredentialProblem::Throttled,
        FailureReason::AccessDenied => CredentialProblem::Denied,
        FailureReason::Credentials => CredentialProblem::Rejected,
        FailureReason::Timeout => CredentialProblem::TimedOut,
        FailureReason::Connect => CredentialProblem::Unreachable,
        FailureReason::Internal | FailureReason::Protocol | FailureReason::CredentialsUnavailable => {
            CredentialProblem::Unavailable
        }
        FailureReason::NotFound | FailureReason::Validation | FailureReason::Other => CredentialProblem::Misconfigured,
    }
}
