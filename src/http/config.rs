//! `/config`: the configuration in force, its secrets hidden.

use axum::extract::State;

use super::{AppState, printable_lines};

pub(super) async fn show(State(state): State<AppState>) -> String {
    printable_lines(&state.board.daemon().config_in_force) + "\n"
}
