//! `/-/healthy` and `/-/ready`.

use axum::extract::State;
use axum::http::StatusCode;

use super::{AppState, printable_lines};

/// The process works.
pub(super) async fn healthy() -> &'static str {
    "healthy\n"
}

/// The daemon does its work, or why it does not.
pub(super) async fn ready(State(state): State<AppState>) -> (StatusCode, String) {
    match state.board.daemon().ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", printable_lines(&reason))),
    }
}
