//! `/config`: the running configuration with secrets hidden, as a page for a browser, otherwise as TOML.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use maud::html;

use super::html::{Page, absolute_time, copyable, page};
use crate::http::api::negotiation::accepts_html;
use crate::http::app_state::AppState;
use crate::http::response::sanitized_lines;

pub(in crate::http) async fn show(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let renderer = state.renderer.clone();
    let response = renderer.large_response(move || {
        let daemon = state.shared.daemon();
        let text = sanitized_lines(&daemon.effective_config);
        if !accepts_html(&headers) {
            return (text + "\n").into_response();
        }
        let content = html! {
            h1 { "Configuration" }
            p.summary {
                "In use" @if let Some(at) = daemon.config_loaded_at { " since " (absolute_time(at)) } ", with defaults, and secrets hidden. The file: "
                (copyable("the path", &daemon.config_file.to_string_lossy()))
            }
            pre { code { (text) } }
        };
        page(&state, Page::new("Configuration", content))
    });
    ([(header::VARY, "accept")], response.await).into_response()
}
