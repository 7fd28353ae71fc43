//! The routes of the listener and of the control socket, which adds the reload.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use super::app_state::AppState;
use super::{api, ui};

pub(super) fn router(state: AppState) -> Router {
    Router::new()
        .route("/", get(ui::status_page::show))
        .route("/jobs/{kind}/{store_id}/{job_id}", get(ui::job_page::show))
        .route("/style.css", get(ui::html::style))
        .route("/metrics", get(api::metrics::show))
        .route("/-/healthy", get(api::daemon::healthy))
        .route("/-/ready", get(api::daemon::ready))
        .route("/api/v1/daemon", get(api::daemon::show))
        .route("/api/v1/jobs", get(api::jobs::list))
        .route("/api/v1/stores", get(api::stores::list))
        .route("/api/v1/transitions", get(api::transitions::list))
        .route("/config", get(api::daemon::config))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found\n") })
        .with_state(state)
}
