//! Finds the cause of a source's error: by the types of the SDK's errors and by AWS's error codes, never by words.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_omics::config::http::HttpResponse;
use aws_sdk_omics::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sso::operation::get_role_credentials::GetRoleCredentialsError;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use aws_smithy_runtime_api::client::result::ConnectorError;

use super::failure::{SourceCause, SourceFailure};
use crate::core::failure::FailureReason;
use crate::healthomics::aws::errors::{
    causes, chain, code_and_message, contains, reason_of_code, reason_of_status, unexpected_body_message,
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

/// The parts of an SDK error whose type is public.
struct TypedError {
    cause: SourceCause,
    /// The action of AWS's API that failed.
    action: Option<&'static str>,
    /// The code and the message of AWS's response.
    response: Option<String>,
}

pub(super) fn classify(source: &SourceInfo, error: &CredentialsError) -> SourceFailure {
    // The failure of another source, whose credentials this source uses.
    if let Some(failure) = causes(error).find_map(|cause| cause.downcast_ref::<SourceFailure>()) {
        return failure.clone();
    }
    let typed = causes(error).find_map(typed_error);
    let cause = match (error, &typed) {
        (CredentialsError::CredentialsNotLoaded(_), _) => SourceCause::NotFound,
        (CredentialsError::InvalidConfiguration(_), _) => SourceCause::Misconfigured,
        (CredentialsError::ProviderTimedOut(_), _) => SourceCause::TimedOut,
        (_, Some(typed)) => typed.cause,
        _ if contains::<ConnectorError>(error) => SourceCause::Unreachable,
        // The cached token is missing or has expired. The SDK's errors for that are private.
        _ if source.sso_profile.is_some() => SourceCause::Rejected,
        // A file, such as the token of a web identity.
        _ if contains::<std::io::Error>(error) => SourceCause::Misconfigured,
        _ => SourceCause::Unavailable,
    };
    let detail = typed.as_ref().and_then(|typed| typed.response.clone()).unwrap_or_else(|| chain(error));
    let name = match (typed.as_ref().and_then(|typed| typed.action), &source.role_arn) {
        (None, _) => source.name.clone(),
        (Some(action), None) => format!("{action} for {}", source.name),
        (Some(action), Some(role)) => format!("{action} on {role}"),
    };
    match &source.sso_profile {
        Some(profile) if cause == SourceCause::Rejected => {
            let remedy = format!("run `aws sso login --profile {profile}`");
            SourceFailure::with_remedy(cause, &name, &detail, &remedy)
        }
        _ => SourceFailure::new(cause, &name, &detail),
    }
}

fn typed_error(error: &(dyn Error + 'static)) -> Option<TypedError> {
    action_error::<AssumeRoleError>(error, "sts:AssumeRole")
        .or_else(|| action_error::<AssumeRoleWithWebIdentityError>(error, "sts:AssumeRoleWithWebIdentity"))
        .or_else(|| action_error::<GetRoleCredentialsError>(error, "sso:GetRoleCredentials"))
        .or_else(|| {
            // The SDK's error if the credentials endpoint of a container does not respond.
            let SdkError::TimeoutError(_) = error.downcast_ref::<SdkError<CredentialsError, HttpResponse>>()? else {
                return None;
            };
            Some(TypedError { cause: SourceCause::TimedOut, action: None, response: None })
        })
}

/// The failure of an operation whose error is `E`.
fn action_error<E: ProvideErrorMetadata + Error + 'static>(
    error: &(dyn Error + 'static),
    action: &'static str,
) -> Option<TypedError> {
    let (cause, response) = match error.downcast_ref::<SdkError<E, HttpResponse>>()? {
        SdkError::TimeoutError(_) => (SourceCause::TimedOut, None),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => (SourceCause::TimedOut, None),
        SdkError::DispatchFailure(_) => (SourceCause::Unreachable, None),
        SdkError::ConstructionFailure(_) => (SourceCause::Misconfigured, None),
        SdkError::ServiceError(context) => {
            let code = context.err().code();
            let unexpected = || unexpected_body_message(context.raw());
            let response = code.map_or_else(unexpected, |code| code_and_message(code, context.err()));
            (cause_of_response(code, context.raw()), Some(response))
        }
        SdkError::ResponseError(context) => {
            (cause_of_response(None, context.raw()), Some(unexpected_body_message(context.raw())))
        }
        _ => (SourceCause::Unavailable, None),
    };
    Some(TypedError { cause, action: Some(action), response })
}

fn cause_of_response(code: Option<&str>, response: &HttpResponse) -> SourceCause {
    match code {
        Some("IDPCommunicationError") => return SourceCause::Unavailable,
        Some("IDPRejectedClaim") => return SourceCause::Denied,
        // Codes of STS, and of SSO for a session that has ended.
        Some("InvalidIdentityToken" | "UnauthorizedException") => return SourceCause::Rejected,
        Some("RegionDisabledException") => return SourceCause::Misconfigured,
        _ => {}
    }
    match code.and_then(reason_of_code).unwrap_or_else(|| reason_of_status(response)) {
        FailureReason::Throttled => SourceCause::Throttled,
        FailureReason::AccessDenied => SourceCause::Denied,
        FailureReason::Credentials => SourceCause::Rejected,
        FailureReason::Timeout => SourceCause::TimedOut,
        FailureReason::Connect => SourceCause::Unreachable,
        FailureReason::Internal | FailureReason::Protocol | FailureReason::CredentialsUnavailable => {
            SourceCause::Unavailable
        }
        FailureReason::NotFound | FailureReason::Validation | FailureReason::Other => SourceCause::Misconfigured,
    }
}
