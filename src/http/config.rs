//! `/config`: the configuration in force, its secrets hidden.

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::{AppState, printable_lines};

pub(super) async fn show(State(state): State<AppState>) -> Response {
    let in_force = state.board.daemon().config_in_force;
    (printable_lines(&in_force) + "\n").into_response()
}
