//! What the daemon shows over HTTP: pages for people, JSON for scripts, metrics for Prometheus.
//!
//! It reads the board and the record and changes nothing, so GET and HEAD are all there is. One file an endpoint; `guard`
//! stands before them all, `server` around them. Every answer is made whole and off the runtime's own threads: ten thousand
//! watches take a while to write, and polls must not wait for it.

pub mod client;
mod config;
pub mod control;
pub mod daemon;
mod guard;
mod health;
mod html;
mod job_page;
mod metrics;
mod negotiation;
mod page;
mod quota;
mod selection;
pub mod server;
pub mod stores;
mod timeline;
pub mod tls;
pub mod transitions;
pub mod users;
pub mod watches;
mod words;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::sync::Semaphore;
use tracing::error;

use crate::clock::Clock;
use crate::core::sanitize::Printable;
use crate::core::time::Timestamp;
use crate::database::RecordReader;
use crate::instruments::Instruments;
use crate::metrics::Metrics;
use crate::state::StatusBoard;

/// Answers that are made at a time. Each may read the record, which takes three descriptors; more would be made no sooner.
static RENDERINGS: Semaphore = Semaphore::const_new(8);

/// What the endpoints read.
#[derive(Clone, Debug)]
pub struct AppState {
    /// Every watch and the daemon itself.
    pub board: StatusBoard,
    /// What a scrape shows.
    pub metrics: Arc<Metrics>,
    /// How fast AWS may be asked.
    pub instruments: Instruments,
    /// The transitions.
    pub record: RecordReader,
    /// For how long ago things were.
    pub clock: Clock,
    /// The names, in lower case, that this server may be called by in any domain, beside `localhost` and IP addresses; `None`: any, since
    /// a certificate says who it is.
    pub host_names: Option<Arc<[String]>>,
}

/// Every path there is.
fn router(state: AppState) -> Router {
    let under_way = Arc::default();
    Router::new()
        .route("/", get(page::show))
        .route("/watch/{reference_store_id}/{import_job_id}", get(job_page::show))
        .route("/style.css", get(html::style))
        .route("/metrics", get(move |State(state), headers| metrics::show(Arc::clone(&under_way), state, headers)))
        .route("/-/healthy", get(health::healthy))
        .route("/-/ready", get(health::ready))
        .route("/api/v1/daemon", get(daemon::show))
        .route("/api/v1/watches", get(watches::list))
        .route("/api/v1/stores", get(stores::list))
        .route("/api/v1/transitions", get(transitions::list))
        .route("/config", get(config::show))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found\n") })
        .layer(from_fn_with_state(state.host_names.clone(), guard::guard))
        .with_state(state)
}

/// The answer that `render` makes, on a thread that may block.
async fn rendered<R: IntoResponse + Send + 'static>(render: impl FnOnce() -> R + Send + 'static) -> Response {
    // An error means that the semaphore is closed, which it never is.
    let turn = RENDERINGS.acquire().await.ok();
    let render = move || {
        let answer = render();
        drop(turn);
        answer
    };
    match tokio::task::spawn_blocking(render).await {
        Ok(answer) => answer.into_response(),
        Err(fault) => broken(&fault),
    }
}

/// The answer where a fault of ours stands in the way of one.
fn broken(fault: &dyn std::error::Error) -> Response {
    error!(%fault, "an HTTP answer failed");
    (StatusCode::INTERNAL_SERVER_ERROR, "a fault of refwatch: see its log\n").into_response()
}

/// An answer in JSON. Foreign text that could act on a display is escaped the JSON way, so it is still the same string to
/// whoever parses it.
fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(json) => {
            (status, [(header::CONTENT_TYPE, "application/json")], Printable(&json).to_string()).into_response()
        }
        Err(fault) => broken(&fault),
    }
}

/// An error in JSON.
fn json_error(status: StatusCode, error: impl Into<String>) -> Response {
    json(status, &serde_json::json!({ "error": error.into() }))
}

/// A time as the record writes it: UTC, with milliseconds.
fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// How long ago a time was, or how far off it is, in its two largest units: "2h 5m", "3days 4h".
#[must_use]
pub fn distance(time: Timestamp, now: Timestamp) -> String {
    let seconds = time.duration_until(now).unsigned_abs().as_secs();
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Text of several lines, each safe to show.
fn printable_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| Printable(line).to_string()).collect();
    lines.join("\n")
}
