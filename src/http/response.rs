//! Helpers of the endpoints: JSON, times and untrusted text.

use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use jiff::SignedDuration;
use serde::Serialize;
use tracing::error;

use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;

/// A 503 means that too many bytes of responses are unsent, or that too many password checks wait. After this time
/// `server::Limits::tcp_user_timeout` has disconnected the clients that do not read, and the checks are usually done.
const RETRY_AFTER_SECONDS: &str = "5";

/// The response 503. `limited` is "requests" or "logins".
pub(super) fn busy(limited: &str) -> Response {
    let retry_after = [(header::RETRY_AFTER, RETRY_AFTER_SECONDS)];
    let message = format!("too many {limited} at a time: retry after {RETRY_AFTER_SECONDS} s\n");
    (StatusCode::SERVICE_UNAVAILABLE, retry_after, message).into_response()
}

pub(super) fn internal_error(error: &dyn std::error::Error) -> Response {
    error!(event = "response_failed", %error, "cannot render an HTTP response");
    (StatusCode::INTERNAL_SERVER_ERROR, "internal error: see the log of refwatch\n").into_response()
}

/// A JSON response. `Sanitized` replaces characters that are unsafe to display. Its replacements are escapes of JSON, so a parser returns
/// the original text.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(json) => {
            (status, [(header::CONTENT_TYPE, "application/json")], Sanitized(&json).to_string()).into_response()
        }
        Err(error) => internal_error(&error),
    }
}

pub(super) fn json_error(status: StatusCode, error: impl Into<String>) -> Response {
    json(status, &serde_json::json!({ "error": error.into() }))
}

/// RFC 3339 in UTC with milliseconds, as in the database.
pub(super) fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// The duration between two times, in any order, in its two largest units: "2h 5m", "3days 4h".
#[must_use]
pub fn duration_between(a: Timestamp, b: Timestamp) -> String {
    duration_text(a.duration_until(b))
}

/// The absolute value of a duration, in its two largest units.
pub(super) fn duration_text(duration: SignedDuration) -> String {
    let seconds = duration.unsigned_abs().as_secs();
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Sanitizes each line, without a line end after the last.
#[must_use]
pub fn sanitized_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| Sanitized(line).to_string()).collect();
    lines.join("\n")
}
