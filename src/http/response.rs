//! Helpers of the endpoints: rendering, JSON, times and untrusted text.

use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::Semaphore;
use tracing::error;

use crate::core::sanitize::Sanitized;
use crate::core::time::Timestamp;

/// Limits simultaneous calls of [`render_blocking`]. Each may open the database, which takes three descriptors.
static RENDER_PERMITS: Semaphore = Semaphore::const_new(8);

/// Runs `render` on a blocking thread, because 10,000 watches take up to 1 s and must not delay polls.
pub(super) async fn render_blocking<R: IntoResponse + Send + 'static>(
    render: impl FnOnce() -> R + Send + 'static,
) -> Response {
    // The semaphore is never closed, so there is no error.
    let permit = RENDER_PERMITS.acquire().await.ok();
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
    error!(%error, "cannot render an HTTP response");
    (StatusCode::INTERNAL_SERVER_ERROR, "internal error: see the log of refwatch\n").into_response()
}

/// A JSON response. `Sanitized` uses JSON escapes, so a parser returns the original text.
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

/// Formats a time as the database does: in UTC with milliseconds.
pub(super) fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// The duration between two times, in any order, in its two largest units: "2h 5m", "3days 4h".
#[must_use]
pub fn duration_between(a: Timestamp, b: Timestamp) -> String {
    let seconds = a.duration_until(b).unsigned_abs().as_secs();
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Sanitizes each line, without a line end after the last.
#[must_use]
pub fn sanitized_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| Sanitized(line).to_string()).collect();
    lines.join("\n")
}
