//! `/api/v1/sinks`: every receiver of notifications and its queue, as JSON.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::http::app_state::AppState;
use crate::http::response::{json, rfc3339};
use crate::state::SinkStatus;

/// One `[[notify]]` entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkInfo {
    pub name: String,
    /// Scheme, host and port only, or the file that contains the URL.
    pub url: String,
    /// `up`, `paused` or `disabled`.
    pub state: String,
    /// Events that wait for delivery.
    pub waiting: u32,
    /// Events whose delivery has failed.
    pub failed: u32,
    pub oldest_waiting_at: Option<String>,
    pub paused_since: Option<String>,
    pub next_attempt_at: Option<String>,
    pub disabled_at: Option<String>,
    pub last_delivered_at: Option<String>,
    /// The error of the last request that failed.
    pub last_error: Option<String>,
}

impl From<&SinkStatus> for SinkInfo {
    fn from(sink: &SinkStatus) -> Self {
        Self {
            name: sink.name.to_string(),
            url: sink.url.clone(),
            state: sink.state().to_owned(),
            waiting: sink.waiting,
            failed: sink.failed,
            oldest_waiting_at: sink.oldest.map(rfc3339),
            paused_since: sink.paused.as_ref().map(|paused| rfc3339(paused.since)),
            next_attempt_at: sink.paused.as_ref().map(|paused| rfc3339(paused.next_attempt_at)),
            disabled_at: sink.disabled_at.map(rfc3339),
            last_delivered_at: sink.last_delivered_at.map(rfc3339),
            last_error: sink.last_error.clone(),
        }
    }
}

pub(in crate::http) async fn list(State(state): State<AppState>) -> Response {
    let sinks = state.shared.sinks();
    json(StatusCode::OK, &sinks.iter().map(|sink| SinkInfo::from(&**sink)).collect::<Vec<_>>())
}
