//! `/metrics`.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::{AppState, broken, rendered};
use crate::metrics::CONTENT_TYPE;

pub(super) async fn show(State(state): State<AppState>) -> Response {
    rendered(move || match state.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(fault) => broken(&fault),
    })
    .await
}
