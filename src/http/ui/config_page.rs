//! `/config`: a page for a browser, otherwise TOML.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use maud::html;

use super::html::{Page, absolute_time, alerts, copyable, page};
use super::presentation::attention;
use super::selection::Refresh;
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
        let (daemon, now) = (state.shared.daemon(), state.clock.now().wall);
        let content = html! {
            (alerts(&daemon))
            h1 { "Configuration" }
            p.summary {
                "In use" @if let Some(at) = daemon.config_loaded_at { " since " (absolute_time(at)) } ", with defaults, and secrets hidden. The file is "
                (copyable("the path", &daemon.config_file.to_string_lossy())) "."
            }
            pre { code { (sanitized_lines(&daemon.effective_config)) } }
        };
        let attention = attention(&state.shared);
        page(Page { title: "Configuration", root: "./", now, refresh: Refresh::Off, attention, footer: html! {}, content })
    });
    (vary, page.await).into_response()
}
