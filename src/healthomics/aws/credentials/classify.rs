//! Finds the cause of a source's error: by the types of the SDK's errors and by AWS's error codes, never by words.

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
    chain, chain_contains, code_and_message, error_chain, reason_of_code, reason_of_status, unexpected_body_message,
};

/// Describes a source in error messages.
#[derive(Clone, Debug, Default)]
pub(super) struct SourceInfo {
    /// Such as `profile "lab"`.
    pub(super) name: String,
    /// The role that the SDK assumes for this source.
    pub(super) role_arn: Option<String>,
    /// The profile, if its credentials come from SSO.
    pub(super) sso_profile: Option<String>,
}

/// A failed request of the SDK to an AWS service. It is recognized only if the SDK's error type is public.
struct CallFailure {
    cause: CredentialProblem,
    /// The action of AWS's API that failed.
    action: Option<&'static str>,
    /// The code and the message of AWS's response.
    response: Option<String>,
}

pub(super) fn classify(source: &SourceInfo, error: &CredentialsError) -> CredentialFailure {
    // The failure of another source, whose credentials this source uses.
    if let Some(failure) = error_chain(error).find_map(|cause| cause.downcast_ref::<CredentialFailure>()) {
        return failure.clone();
    }
    let call = error_chain(error).find_map(call_failure);
    let cause = match (error, &call) {
        (CredentialsError::CredentialsNotLoaded(_), _) => CredentialProblem::NoSource,
        (CredentialsError::InvalidConfiguration(_), _) => CredentialProblem::Misconfigured,
        (CredentialsError::ProviderTimedOut(_), _) => CredentialProblem::TimedOut,
        (_, Some(call)) => call.cause,
        _ if chain_contains::<ConnectorError>(error) => CredentialProblem::Unreachable,
        // The cached token is missing or has expired. The SDK's errors for that are private.
        _ if source.sso_profile.is_some() => CredentialProblem::Rejected,
        // A file, such as the token of a web identity.
        _ if chain_contains::<std::io::Error>(error) => CredentialProblem::Misconfigured,
        _ => CredentialProblem::Unavailable,
    };
    let detail = call.as_ref().and_then(|call| call.response.clone()).unwrap_or_else(|| chain(error));
    let name = match (call.as_ref().and_then(|call| call.action), &source.role_arn) {
        (None, _) => source.name.clone(),
        // SSO's action is called for the profile, before the SDK assumes the role.
        (Some(action), Some(role)) if action.starts_with("sts:") => format!("{action} on {role}"),
        (Some(action), _) => format!("{action} for {}", source.name),
    };
    match &source.sso_profile {
        Some(profile) if cause == CredentialProblem::Rejected => {
            let remedy = format!("run `aws sso login --profile {profile}`");
            CredentialFailure::with_remedy(cause, &name, &detail, &remedy)
        }
        _ => CredentialFailure::new(cause, &name, &detail),
    }
}

fn call_failure(error: &(dyn Error + 'static)) -> Option<CallFailure> {
    action_error::<AssumeRoleError>(error, "sts:AssumeRole")
        .or_else(|| action_error::<AssumeRoleWithWebIdentityError>(error, "sts:AssumeRoleWithWebIdentity"))
        .or_else(|| action_error::<GetRoleCredentialsError>(error, "sso:GetRoleCredentials"))
        .or_else(|| {
            // The SDK's error if the credentials endpoint of a container does not respond.
            let SdkError::TimeoutError(_) = error.downcast_ref::<SdkError<CredentialsError, HttpResponse>>()? else {
                return None;
            };
            Some(CallFailure { cause: CredentialProblem::TimedOut, action: None, response: None })
        })
}

/// The failure of an operation whose error is `E`.
fn action_error<E: ProvideErrorMetadata + Error + 'static>(
    error: &(dyn Error + 'static),
    action: &'static str,
) -> Option<CallFailure> {
    let (cause, response) = match error.downcast_ref::<SdkError<E, HttpResponse>>()? {
        SdkError::TimeoutError(_) => (CredentialProblem::TimedOut, None),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => (CredentialProblem::TimedOut, None),
        SdkError::DispatchFailure(_) => (CredentialProblem::Unreachable, None),
        SdkError::ConstructionFailure(_) => (CredentialProblem::Misconfigured, None),
        SdkError::ServiceError(context) => {
            let code = context.err().code();
            let unexpected = || unexpected_body_message(context.raw());
            let response = code.map_or_else(unexpected, |code| code_and_message(code, context.err()));
            (cause_of_response(code, context.raw()), Some(response))
        }
        SdkError::ResponseError(context) => {
            (cause_of_response(None, context.raw()), Some(unexpected_body_message(context.raw())))
        }
        _ => (CredentialProblem::Unavailable, None),
    };
    Some(CallFailure { cause, action: Some(action), response })
}

fn cause_of_response(code: Option<&str>, response: &HttpResponse) -> CredentialProblem {
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
