//! The response 404: JSON below `/api`, a page for a browser, otherwise one line of text.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use maud::html;

use super::html::{Page, page};
use crate::http::api::negotiation::accepts_html;
use crate::http::app_state::AppState;
use crate::http::response::json_error;

pub(in crate::http) async fn show(State(state): State<AppState>, uri: Uri, headers: HeaderMap) -> Response {
    not_found(&state, &uri, &headers, "There is no such page.")
}

/// `reason` is a sentence.
pub(super) fn not_found(state: &AppState, uri: &Uri, headers: &HeaderMap, reason: &str) -> Response {
    if uri.path().starts_with("/api/") {
        return json_error(StatusCode::NOT_FOUND, "not found");
    }
    if !accepts_html(headers) {
        return (StatusCode::NOT_FOUND, format!("not found: {reason}\n")).into_response();
    }
    let root = "../".repeat(uri.path().matches('/').count().saturating_sub(1));
    let root = if root.is_empty() { "./" } else { &root };
    let content = html! {
        h1 { "Not found" }
        p { (reason) " " a href=(root) { "Show all watches" } " or " a href={ (root) "history" } { "the ended jobs in the database" } "." }
    };
    (StatusCode::NOT_FOUND, page(state, Page { root, ..Page::new("Not found", content) })).into_response()
}
