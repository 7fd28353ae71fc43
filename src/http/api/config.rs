//! `/config`: the configuration in force, its secrets hidden.

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::http::app_state::AppState;
use crate::http::response::{internal_error, printable_lines};

pub(in crate::http) async fn show(State(state): State<AppState>) -> Response {
    let in_force = state.board.daemon().config_in_force;
    // Of many jobs it takes longer than a worker may be kept.
    let written = tokio::task::spawn_blocking(move || printable_lines(&in_force.to_toml()) + "\n");
    written.await.map_or_else(|fault| internal_error(&fault), IntoResponse::into_response)
}
