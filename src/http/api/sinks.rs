//! `/api/v1/sinks`: every receiver of notifications and its queue, as JSON.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::http::app_state::AppState;
use crate::http::response::json;

pub(in crate::http) async fn list(State(state): State<AppState>) -> Response {
    let sinks = state.shared.sinks();
    json(StatusCode::OK, &sinks.iter().map(|sink| &**sink).collect::<Vec<_>>())
}
