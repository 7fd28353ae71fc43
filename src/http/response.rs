//! What the endpoints share: how a response is rendered, and how JSON, times and foreign text are written.
//!
//! A response is rendered whole and on a blocking thread: ten thousand watches take a while, and polls must not wait for it.

use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::Semaphore;
use tracing::error;

use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;

/// Responses rendered at once. Each may read the database, which takes three descriptors.
static RENDERINGS: Semaphore = Semaphore::const_new(8);

/// Runs `render` on a blocking thread.
pub(super) async fn rendered<R: IntoResponse + Send + 'static>(
    render: impl FnOnce() -> R + Send + 'static,
) -> Response {
    // An error would mean that the semaphore is closed, which it never is.
    let permit = RENDERINGS.acquire().await.ok();
    let render = move || {
        let response = render();
        drop(permit);
        response
    };
    match tokio::task::spawn_blocking(render).await {
        Ok(response) => response.into_response(),
        Err(error) => internal_error(&error),
    }
}

pub(super) fn internal_error(error: &dyn std::error::Error) -> Response {
    error!(%error, "an HTTP response failed");
    (StatusCode::INTERNAL_SERVER_ERROR, "internal error: see the log of refwatch\n").into_response()
}

/// A response in JSON. Untrusted text is escaped as JSON does, so a parser returns the original string.
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

/// A time as the database writes it: UTC, with milliseconds.
pub(super) fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// How long ago a time was, or how far off it is, in its two largest units: "2h 5m", "3days 4h".
#[must_use]
pub fn distance(time: Timestamp, now: Timestamp) -> String {
    let seconds = time.duration_until(now).unsigned_abs().as_secs();
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Text of several lines, each safe to show.
pub(super) fn printable_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| Sanitized(line).to_string()).collect();
    lines.join("\n")
}
