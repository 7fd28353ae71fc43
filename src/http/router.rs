//! The routes of the listener. The control socket has them too, and adds its own.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::middleware::{from_extractor, map_request_with_state};
use axum::response::Redirect;
use axum::routing::get;

use super::app_state::AppState;
use super::parameters::NoQueryParameters;
use super::{api, ui};

pub(super) fn router(state: AppState) -> Router {
    let without_query = Router::new()
        .route("/jobs/{kind}/{store_id}/{job_id}", get(ui::job_page::show))
        .route("/metrics", get(api::metrics::show))
        .route("/runbook", get(ui::runbook::show))
        .route("/style.css", get(ui::html::STYLE))
        .route("/icon.svg", get(ui::html::ICON))
        .route("/icon-attention.svg", get(ui::html::ICON_ATTENTION))
        .route("/-/healthy", get("healthy\n"))
        .route("/-/ready", get(api::daemon::ready))
        .route("/api/v1/daemon", get(api::daemon::show))
        .route("/api/v1/sinks", get(api::sinks::list))
        .route("/api/v1/stores", get(api::stores::list))
        .route("/config", get(ui::config_page::show))
        .route_layer(from_extractor::<NoQueryParameters>());
    let external_path = Arc::clone(&state.external_path);
    let routes = Router::new()
        .route("/", get(ui::status_page::show))
        .route("/history", get(ui::history_page::show))
        .route("/api/v1/jobs", get(api::jobs::list))
        .route("/api/v1/transitions", get(api::transitions::list))
        .merge(without_query)
        .fallback(ui::not_found::show)
        .with_state(state);
    // A layer of `routes` would run after the path has been matched, so `routes` is the fallback of another router.
    Router::new().fallback_service(routes).layer(map_request_with_state(external_path, remove_external_path))
}

/// Removes the path of `http.external_url`. A reverse proxy may keep it or remove it: both work. A request for the path without its final
/// slash is redirected, because the relative links of the page would lead elsewhere.
async fn remove_external_path(
    State(external_path): State<Arc<str>>,
    mut request: Request,
) -> Result<Request, Redirect> {
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let Some(internal) = path.strip_prefix(&*external_path).filter(|_| !external_path.is_empty()) else {
        return Ok(request);
    };
    if internal.is_empty() || internal.starts_with('?') {
        return Err(Redirect::permanent(&format!("{external_path}/{internal}")));
    }
    // `/refwatchx` only begins with the same letters as `/refwatch`, so it is left as it is.
    if let Some(uri) = internal.starts_with('/').then(|| internal.parse().ok()).flatten() {
        *request.uri_mut() = uri;
    }
    Ok(request)
}
