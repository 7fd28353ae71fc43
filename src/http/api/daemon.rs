//! The endpoints of the daemon's own state: `/-/ready` and `/api/v1/daemon`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::http::app_state::AppState;
use crate::http::response::{json, rfc3339, sanitized_lines};
use crate::state::ConfigError;

pub(in crate::http) async fn ready(State(state): State<AppState>) -> (StatusCode, String) {
    match state.shared.daemon().ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, sanitized_lines(&reason) + "\n"),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonInfo {
    pub version: String,
    /// The main configuration file, absolute.
    pub config_file: String,
    pub database: String,
    pub pid: u32,
    /// The reason if `/-/ready` returns 503.
    pub not_ready: Option<String>,
    pub config_loaded_at: Option<String>,
    pub config_error: Option<ConfigError>,
    pub database_error: Option<String>,
}

pub(in crate::http) async fn show(State(state): State<AppState>) -> Response {
    let daemon = state.shared.daemon();
    let response = DaemonInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config_file: daemon.config_file.to_string_lossy().into_owned(),
        database: daemon.database.to_string_lossy().into_owned(),
        pid: std::process::id(),
        not_ready: daemon.ready().err(),
        config_loaded_at: daemon.config_loaded_at.map(rfc3339),
        config_error: daemon.config_error,
        database_error: daemon.database_error,
    };
    json(StatusCode::OK, &response)
}
