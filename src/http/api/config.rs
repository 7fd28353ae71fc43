//! `/config`: the configuration in force, its secrets hidden.

use axum::extract::State;

use crate::http::app_state::AppState;
use crate::http::response::printable_lines;

pub(in crate::http) async fn show(State(state): State<AppState>) -> String {
    printable_lines(&state.board.daemon().config_in_force) + "\n"
}
