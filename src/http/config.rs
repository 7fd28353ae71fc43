//! `/config`: the configuration in force, its secrets hidden.

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::{AppState, broken, printable_lines};

pub(super) async fn show(State(state): State<AppState>) -> Response {
    let in_force = state.board.daemon().config_in_force;
    // Of many jobs it takes longer than a worker may be kept.
    let written = tokio::task::spawn_blocking(move || printable_lines(&in_force.to_toml()) + "\n");
    written.await.map_or_else(|fault| broken(&fault), IntoResponse::into_response)
}
