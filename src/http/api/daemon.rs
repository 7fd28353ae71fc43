//! `/api/v1/daemon`: how the daemon itself fares, as JSON.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::http::app_state::AppState;
use crate::http::response::{json, rfc3339};

/// The daemon. What is not so is null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "those of `DaemonView`, as text")]
pub struct Daemon {
    pub version: String,
    /// Why `/-/ready` does not say 200.
    pub not_ready: Option<String>,
    pub config_loaded_at: Option<String>,
    pub config_error: Option<ConfigError>,
    pub record_error: Option<String>,
}

/// What is wrong with the configuration as it was last read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "those of the board's, as text")]
pub struct ConfigError {
    pub in_force: String,
    pub summary: String,
    pub details: String,
}

pub(in crate::http) async fn show(State(state): State<AppState>) -> Response {
    let daemon = state.board.daemon();
    let config_error = daemon.config_error.as_ref().map(|error| ConfigError {
        in_force: error.in_force.to_owned(),
        summary: error.summary.clone(),
        details: error.details.clone(),
    });
    let shown = Daemon {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        not_ready: daemon.ready().err(),
        config_loaded_at: daemon.config_loaded_at.map(rfc3339),
        config_error,
        record_error: daemon.record_error,
    };
    json(StatusCode::OK, &shown)
}
