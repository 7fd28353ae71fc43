//! From the SDK's errors to one [`PollFailure`]. Every error of the API page and of AWS's page of common errors is here.

use std::error::Error;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_omics::config::http::HttpResponse;
use aws_sdk_omics::error::{ProvideErrorMetadata, SdkError};
use http_body_util::LengthLimitError;

use super::redact::redacted;
use super::wire::ANSWER_BYTES_MAX;
use crate::core::outcome::{FailureReason, Operation, PollFailure};
use crate::core::text::{Printable, excerpt};
use crate::core::time::Timestamp;

/// How much of an answer that is none is quoted, in characters.
const EXCERPT_MAX: usize = 200;

/// Classifies the `error` of an `operation`. `wall` is now, for a `Retry-After` that is a date.
pub(super) fn classify<E>(operation: Operation, error: &SdkError<E, HttpResponse>, wall: Timestamp) -> PollFailure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let (reason, message) = match error {
        SdkError::ServiceError(context) => service_error(operation, context.err(), context.raw()),
        SdkError::ResponseError(context) => broken_answer(error, context.raw()),
        SdkError::TimeoutError(_) => (FailureReason::Timeout, "no whole answer before poll.timeout".to_owned()),
        _ if find::<CredentialsError>(error).is_some() => (FailureReason::Credentials, credentials(error)),
        SdkError::DispatchFailure(_) => (FailureReason::Connect, connect(error)),
        _ => (FailureReason::Other, chain(error)),
    };
    let retry_after = error.raw_response().and_then(|response| retry_after(response, wall));
    PollFailure { reason, message, retry_after }
}

/// The reason behind an error code. `None`: the code says nothing that the HTTP status does not.
fn reason_of_code(code: &str) -> Option<FailureReason> {
    Some(match code {
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded" => FailureReason::Throttled,
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" | "OptInRequired" => FailureReason::AccessDenied,
        "ResourceNotFoundException" => FailureReason::NotFound,
        "ValidationException" | "ValidationError" => FailureReason::Validation,
        "RequestTimeoutException" | "RequestTimeout" => FailureReason::Timeout,
        "InternalServerException" | "InternalFailure" | "ServiceUnavailable" | "ServiceUnavailableException" => {
            FailureReason::Internal
        }
        "ExpiredTokenException"
        | "ExpiredToken"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "RequestExpired"
        | "RequestTimeTooSkewed" => FailureReason::Credentials,
        _ => return None,
    })
}

/// The reason behind an HTTP status where no code is readable: from a proxy or a load balancer, most often. A 404 of theirs is
/// no word of the service that there is no such job.
fn reason_of_status(status: u16) -> FailureReason {
    match status {
        429 => FailureReason::Throttled,
        408 => FailureReason::Timeout,
        401 | 403 => FailureReason::AccessDenied,
        407 => FailureReason::Connect,
        500..=599 => FailureReason::Internal,
        100..=399 => FailureReason::Protocol,
        _ => FailureReason::Other,
    }
}

/// What a person can do about an error code that answers `operation`.
fn advice(operation: Operation, code: &str) -> Option<&'static str> {
    Some(match code {
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" => match operation {
            Operation::GetReferenceImportJob => {
                "allow this identity omics:GetReferenceImportJob on the reference store"
            }
            Operation::ListReferenceImportJobs => {
                "allow this identity omics:ListReferenceImportJobs on the reference store"
            }
        },
        "OptInRequired" => "enable AWS HealthOmics for this account",
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => {
            "renew the credentials; check this machine's clock"
        }
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestTimeTooSkewed" => {
            "check this machine's clock and the secret key"
        }
        "UnrecognizedClientException" | "InvalidClientTokenId" => "check the access key and the target's region",
        _ => return None,
    })
}

fn service_error(
    operation: Operation,
    error: &impl ProvideErrorMetadata,
    response: &HttpResponse,
) -> (FailureReason, String) {
    let status = response.status().as_u16();
    // A code on a 2xx is part of a body that could not be read, not an error of the service.
    let Some(code) = error.code().filter(|_| !(200..300).contains(&status)) else {
        return (reason_of_status(status), unreadable(response));
    };
    let reason = reason_of_code(code).unwrap_or_else(|| reason_of_status(status));
    let mut message = excerpt(code, EXCERPT_MAX);
    if let Some(said) = error.message().filter(|said| !said.is_empty()) {
        message = format!("{message}: {}", excerpt(&redacted(said), EXCERPT_MAX));
    }
    match advice(operation, code) {
        Some(advice) => (reason, format!("{message} ({advice})")),
        None => (reason, message),
    }
}

/// An answer that began and cannot be read: the connection broke, or it is not what the API page says.
fn broken_answer(error: &(dyn Error + 'static), response: &HttpResponse) -> (FailureReason, String) {
    if find::<LengthLimitError>(error).is_some() {
        return (FailureReason::Protocol, format!("the answer is longer than {ANSWER_BYTES_MAX} bytes"));
    }
    if find::<hyper::Error>(error).is_some() || find::<std::io::Error>(error).is_some() {
        return (FailureReason::Connect, format!("the answer broke off: {}", chain(error)));
    }
    let status = response.status().as_u16();
    (reason_of_status(status), unreadable(response))
}

fn unreadable(response: &HttpResponse) -> String {
    let status = response.status().as_u16();
    let hint = match status {
        407 => "the proxy asks for credentials: ",
        300..=399 => "redirects are not followed: ",
        _ => "",
    };
    let body = response.body().bytes().unwrap_or_default();
    let start = String::from_utf8_lossy(&body[..body.len().min(4 * EXCERPT_MAX)]);
    let quoted = excerpt(&Printable(&redacted(&start)).to_string(), EXCERPT_MAX);
    format!("{hint}HTTP {status}, but the body is not HealthOmics's: \"{quoted}\"")
}

fn credentials(error: &(dyn Error + 'static)) -> String {
    let chain = chain(error);
    if chain.contains("SSO") || chain.contains("sso") {
        return format!("{chain} (run `aws sso login` for this profile)");
    }
    format!("no AWS credentials; give the service an instance role, a profile, or the environment ({chain})")
}

fn connect(error: &(dyn Error + 'static)) -> String {
    let chain = chain(error);
    if chain.contains("dns error") {
        return format!("{chain} (is the region right, and is HealthOmics offered in it?)");
    }
    chain
}

/// How long the service asks to wait: `x-amz-retry-after` in milliseconds, or `Retry-After` in seconds or as a date. What
/// cannot be read is not there.
fn retry_after(response: &HttpResponse, wall: Timestamp) -> Option<Duration> {
    let headers = response.headers();
    if let Some(millis) = headers.get("x-amz-retry-after").and_then(|text| text.trim().parse().ok()) {
        return Some(Duration::from_millis(millis));
    }
    let text = headers.get("retry-after")?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Duration::try_from(date.duration_since(wall)).ok()
}

/// The first error of type `T` in the chain.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// What the SDK and the HTTP stack wrap around what happened.
const WRAPPERS: [&str; 8] = [
    "dispatch failure",
    "response error",
    "service error",
    "failed to construct request",
    "other",
    "io error",
    "client error (Connect)",
    "client error (SendRequest)",
];

/// The chain as one line. A link that wraps, or repeats the one before, adds nothing.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    for cause in causes(error) {
        let text = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if WRAPPERS.contains(&text.as_str()) || line.ends_with(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    excerpt(&redacted(&line), 2 * EXCERPT_MAX)
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}
