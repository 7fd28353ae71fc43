//! The routes of the listener and of the control socket, which adds the reload.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_extractor;
use axum::routing::get;

use super::app_state::AppState;
use super::parameters::{NoParameters, ScrapeParameters};
use super::{api, ui};

pub(super) fn router(state: AppState) -> Router {
    let current = Arc::<api::metrics::CurrentRenderings>::default();
    let scrape = get(move |State(state), headers| api::metrics::show(Arc::clone(&current), state, headers));
    let without_parameters = Router::new()
        .route("/jobs/{kind}/{store_id}/{job_id}", get(ui::job_page::show))
        .route("/style.css", get(ui::html::style))
        .route("/-/healthy", get(api::daemon::healthy))
        .route("/-/ready", get(api::daemon::ready))
        .route("/api/v1/daemon", get(api::daemon::show))
        .route("/api/v1/jobs", get(api::jobs::list))
        .route("/api/v1/stores", get(api::stores::list))
        .route("/config", get(api::daemon::config))
        .route_layer(from_extractor::<NoParameters>());
    Router::new()
        .route("/", get(ui::status_page::show))
        .route("/metrics", scrape.route_layer(from_extractor::<ScrapeParameters>()))
        .route("/api/v1/transitions", get(api::transitions::list))
        .merge(without_parameters)
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found\n") })
        .with_state(state)
}
