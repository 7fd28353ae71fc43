//! Converts the SDK's errors to a [`RequestFailure`].
//!
//! The reason comes from the first of these that exists: a failure of the credentials, the response's error code, its HTTP status. Without
//! a complete response it comes from the SDK's error and the types in its chain. Excerpts are redacted and shortened. `core::failure`
//! defines what follows from a reason.

use std::error::Error;
use std::time::Duration;

use aws_sdk_omics::config::http::HttpResponse;
use aws_sdk_omics::error::{ProvideErrorMetadata, SdkError};
use http_body_util::LengthLimitError;

use super::credentials::CredentialFailure;
use super::redact::redacted;
use crate::config::TargetConfig;
use crate::core::failure::{FailureReason, Operation, RequestFailure};
use crate::core::sanitize::{Sanitized, excerpt};
use crate::core::time::{Timestamp, parse_retry_after};

/// The longest response of HealthOmics that is read. A job has at most 100 items of a few hundred bytes each.
pub(super) const RESPONSE_BYTES_MAX: usize = 1024 * 1024;

/// The longest excerpt of a code or a message, in characters. A chain of errors may have twice as many.
const EXCERPT_CHARS_MAX: usize = 200;

/// The longest excerpt of an unexpected body, in bytes.
const BODY_EXCERPT_BYTES_MAX: usize = 250;

/// The part of an unexpected body that is searched for secrets. Longer than the excerpt, so that a URL at the end of the excerpt is
/// redacted as a whole.
const SCANNED_BYTES_MAX: usize = 4096;

/// The smallest clock skew that is reported. AWS allows five minutes for most services.
const SKEW_MIN: Duration = Duration::from_mins(1);

/// The failure of a request. `operation` is `None` for STS. `wall_now` is for dates in headers.
pub(super) fn request_failure<E: ProvideErrorMetadata + Error + 'static>(
    operation: Option<Operation>,
    config: &TargetConfig,
    error: &SdkError<E, HttpResponse>,
    wall_now: Timestamp,
) -> RequestFailure {
    let credential_failure = causes(error).find_map(|cause| cause.downcast_ref::<CredentialFailure>());
    let (reason, message) = match (credential_failure, error) {
        (Some(CredentialFailure { reason, message }), _) => (*reason, message.clone()),
        (None, SdkError::ServiceError(context)) => service_error(operation, context.err(), context.raw(), wall_now),
        (None, SdkError::ResponseError(context)) => unreadable_response(error, context.raw()),
        (None, SdkError::TimeoutError(_)) => {
            let timeout = humantime::format_duration(config.timeout);
            (FailureReason::Timeout, format!("no complete response within {timeout}"))
        }
        (None, SdkError::DispatchFailure(_)) => (FailureReason::Connect, connect_message(operation, config, error)),
        (None, _) => (FailureReason::Other, chain_text(error)),
    };
    let retry_after = error.raw_response().and_then(|response| retry_after(response, wall_now));
    RequestFailure { reason, message, retry_after }
}

/// The failure of a request that panicked.
pub(super) fn panicked() -> RequestFailure {
    let message = "internal error: the request could not be sent or its response could not be read, see the event `panic` in the \
        log";
    RequestFailure { reason: FailureReason::Internal, message: message.to_owned(), retry_after: None }
}

// In advice, `{action}` is replaced by the IAM action, and `{skew}` by the difference of the clocks.
const ADVICE_PERMISSION: &str = "allow this identity {action}";
const ADVICE_ACCESS_KEY: &str = "check the access key and the region";
const ADVICE_SIGNING: &str = "check the secret key and this machine's clock{skew}";
const ADVICE_EXPIRED: &str = "renew the credentials; check this machine's clock{skew}";

/// `None` for an unknown code: the HTTP status then determines the reason.
#[expect(clippy::match_same_arms, reason = "a line for each family of names")]
fn reason_and_advice(code: &str) -> Option<(FailureReason, Option<&'static str>)> {
    use FailureReason::{AccessDenied, Credentials, Internal, NotFound, Throttled, Timeout, Validation};
    Some(match code {
        "ThrottlingException" | "Throttling" | "ThrottledException" => (Throttled, None),
        "TooManyRequestsException" | "RequestLimitExceeded" => (Throttled, None),
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" => (AccessDenied, Some(ADVICE_PERMISSION)),
        "OptInRequired" => (AccessDenied, Some("enable AWS HealthOmics for this account")),
        "ResourceNotFoundException" => (NotFound, None),
        "ValidationException" | "ValidationError" => (Validation, None),
        "RequestTimeoutException" | "RequestTimeout" => (Timeout, None),
        "InternalServerException" | "InternalFailure" => (Internal, None),
        "ServiceUnavailable" | "ServiceUnavailableException" => (Internal, None),
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => (Credentials, Some(ADVICE_EXPIRED)),
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestTimeTooSkewed" => {
            (Credentials, Some(ADVICE_SIGNING))
        }
        "UnrecognizedClientException" | "InvalidClientTokenId" => (Credentials, Some(ADVICE_ACCESS_KEY)),
        "IncompleteSignature" | "IncompleteSignatureException" => (Credentials, None),
        "MissingAuthenticationToken" | "MissingAuthenticationTokenException" => (Credentials, None),
        _ => return None,
    })
}

pub(super) fn reason_of_code(code: &str) -> Option<FailureReason> {
    reason_and_advice(code).map(|(reason, _)| reason)
}

/// The reason for a response without a known error code. It may be from a proxy or a load balancer, so a 404 does not mean that the
/// job does not exist.
pub(super) fn reason_of_status(response: &HttpResponse) -> FailureReason {
    match response.status().as_u16() {
        429 => FailureReason::Throttled,
        408 => FailureReason::Timeout,
        401 | 403 => FailureReason::AccessDenied,
        407 => FailureReason::Connect,
        500..=599 => FailureReason::Internal,
        100..=399 | 404 => FailureReason::Protocol,
        _ => FailureReason::Other,
    }
}

fn service_error(
    operation: Option<Operation>,
    error: &impl ProvideErrorMetadata,
    response: &HttpResponse,
    wall: Timestamp,
) -> (FailureReason, String) {
    let Some(code) = error.code() else { return (reason_of_status(response), unexpected_body_message(response)) };
    let (reason, advice) = reason_and_advice(code).unwrap_or_else(|| (reason_of_status(response), None));
    let mut message = code_and_message(code, error);
    if let Some(advice) = advice {
        let omics_action = |operation: Operation| {
            format!("omics:{} on the {}", operation.as_str(), operation.kind().info().store.noun())
        };
        let action = operation.map_or_else(|| "sts:GetCallerIdentity".to_owned(), omics_action);
        let skew = clock_skew_note(response, wall).unwrap_or_default();
        message = format!("{message} ({})", advice.replace("{action}", &action).replace("{skew}", &skew));
    }
    (reason, message)
}

pub(super) fn code_and_message(code: &str, error: &impl ProvideErrorMetadata) -> String {
    let quote = |text: &str| excerpt(&redacted(text), EXCERPT_CHARS_MAX);
    match error.message().filter(|text| !text.is_empty()) {
        Some(text) => format!("{}: {}", quote(code), quote(text)),
        None => quote(code),
    }
}

/// The text for `{skew}`: how far this machine's clock is from the response's `Date`, if at least `SKEW_MIN`.
fn clock_skew_note(response: &HttpResponse, wall: Timestamp) -> Option<String> {
    let date = jiff::fmt::rfc2822::parse(response.headers().get("date")?).ok()?.timestamp();
    let ahead = wall.duration_since(date);
    let (by, relation) = (ahead.unsigned_abs(), if ahead.is_negative() { "behind" } else { "ahead of" });
    (by >= SKEW_MIN).then(|| format!(": it is {} s {relation} the service's", by.as_secs()))
}

/// Classifies a response that began but cannot be read: it is too long, the connection broke, or the SDK cannot parse it.
fn unreadable_response(error: &(dyn Error + 'static), response: &HttpResponse) -> (FailureReason, String) {
    if chain_contains::<LengthLimitError>(error) {
        return (FailureReason::Protocol, format!("the response is longer than {RESPONSE_BYTES_MAX} bytes"));
    }
    if chain_contains::<hyper::Error>(error) || chain_contains::<std::io::Error>(error) {
        return (FailureReason::Connect, format!("the response was cut off: {}", chain_text(error)));
    }
    (reason_of_status(response), unexpected_body_message(response))
}

pub(super) fn unexpected_body_message(response: &HttpResponse) -> String {
    let status = response.status().as_u16();
    let hint = match status {
        407 => "the proxy asks for credentials: ",
        300..=399 => "redirects are not followed: ",
        _ => "",
    };
    let body = response.body().bytes().unwrap_or_default();
    let start = String::from_utf8_lossy(&body[..body.len().min(SCANNED_BYTES_MAX)]);
    let shown = Sanitized(&redacted(&start)).to_string();
    let quoted = &shown[..shown.floor_char_boundary(BODY_EXCERPT_BYTES_MAX)];
    let more = if quoted.len() < shown.len() || body.len() > SCANNED_BYTES_MAX { "…" } else { "" };
    format!("{hint}HTTP {status} with an unexpected body: \"{quoted}{more}\"")
}

fn connect_message(operation: Option<Operation>, config: &TargetConfig, error: &(dyn Error + 'static)) -> String {
    let chain = chain_text(error);
    // The texts of errors are compared, because hyper-util has no public types for them. `invalid peer certificate` is rustls's.
    let advice = if chain.contains("tunnel error: proxy authorization required") {
        "the proxy asks for credentials: HTTPS_PROXY=http://user:password@host:port"
    } else if chain.contains("tunnel error") {
        "the proxy of HTTPS_PROXY does not connect to the endpoint: it may forbid this, or the endpoint may not exist"
    } else if chain.contains("invalid peer certificate") {
        "the server's certificate is not trusted: check this machine's clock and its certificate authorities \
         (ca-certificates, SSL_CERT_FILE)"
    } else if operation.is_some() && config.endpoint_url.is_none() && chain.contains("dns error") {
        let region = config.region.as_deref().unwrap_or_default();
        return format!("{chain} (check the region {region}, name resolution and, if it is set, AWS_ENDPOINT_URL)");
    } else {
        return chain;
    };
    format!("{chain} ({advice})")
}

/// The delay that the response requests: `x-amz-retry-after` in milliseconds, else `Retry-After` in seconds or as a date.
/// Unreadable values are ignored.
fn retry_after(response: &HttpResponse, wall: Timestamp) -> Option<Duration> {
    let headers = response.headers();
    let milliseconds = headers.get("x-amz-retry-after").and_then(|text| text.trim().parse().ok());
    milliseconds.map(Duration::from_millis).or_else(|| parse_retry_after(headers.get("retry-after")?, wall))
}

pub(super) fn chain_contains<T: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(<dyn std::error::Error>::is::<T>)
}

/// Texts of errors that only wrap their cause.
const WRAPPERS: [&str; 11] = [
    "dispatch failure",
    "response error",
    "service error",
    "failed to construct request",
    "other",
    "io error",
    "client error (Connect)",
    "client error (SendRequest)",
    "an error occurred while loading credentials",
    "the credential provider was not enabled",
    "the credentials provider was not properly configured",
];

/// The error and its causes on one line, without wrappers and repetitions.
pub(super) fn chain_text(error: &(dyn Error + 'static)) -> String {
    let mut links: Vec<String> = Vec::new();
    for cause in causes(error) {
        let text = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if !WRAPPERS.contains(&text.as_str()) && !links.join(": ").ends_with(&text) {
            links.push(text);
        }
    }
    excerpt(&redacted(&links.join(": ")), 2 * EXCERPT_CHARS_MAX)
}

pub(super) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

#[cfg(test)]
mod tests {
    use aws_sdk_omics::primitives::SdkBody;
    use aws_smithy_runtime_api::http::StatusCode;

    use super::*;

    #[test]
    fn a_password_is_redacted_also_if_the_quote_of_the_body_ends_within_its_url() {
        let body = format!("{}http://ada:hunter2{}@proxy.example/", "x".repeat(200), "3".repeat(100));
        let status = StatusCode::try_from(502).expect("a status");
        let message = unexpected_body_message(&HttpResponse::new(status, SdkBody::from(body)));
        assert!(message.contains("xhttp://[redacted]@proxy") && !message.contains("hunter2"), "{message}");
    }
}
