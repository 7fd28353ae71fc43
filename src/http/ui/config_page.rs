//! `/config`: a page for a browser, otherwise TOML.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use maud::html;

use super::html::{Page, absolute_time, copyable, page};
use crate::http::api::daemon;
use crate::http::api::negotiation::accepts_html;
use crate::http::app_state::AppState;
use crate::http::response::sanitized_lines;

pub(in crate::http) async fn show(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let vary = [(header::VARY, "accept")];
    if !accepts_html(&headers) {
        return (vary, daemon::config(State(state)).await).into_response();
    }
    let renderer = state.renderer.clone();
    let page = renderer.large_page(move || {
        let daemon = state.shared.daemon();
        let content = html! {
            h1 { "Configuration" }
            p.summary {
                "In use" @if let Some(at) = daemon.config_loaded_at { " since " (absolute_time(at)) } ", with defaults, and secrets hidden. The file is "
                (copyable("the path", &daemon.config_file.to_string_lossy())) "."
            }
            pre { code { (sanitized_lines(&daemon.effective_config)) } }
        };
        page(&state, Page::new("Configuration", content))
    });
    (vary, page.await).into_response()
}
