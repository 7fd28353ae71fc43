//! `/-/healthy` and `/-/ready`.

use axum::extract::State;
use axum::http::StatusCode;

use crate::http::app_state::AppState;
use crate::http::response::printable_lines;

/// The process works.
pub(in crate::http) async fn healthy() -> &'static str {
    "healthy\n"
}

/// The daemon does its work, or why it does not.
pub(in crate::http) async fn ready(State(state): State<AppState>) -> (StatusCode, String) {
    match state.board.daemon().ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", printable_lines(&reason))),
    }
}
