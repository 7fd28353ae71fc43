//! Commands to sinks: a test event, and a replay of past events.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde::{Deserialize, Serialize};

use crate::core::job::JobKey;
use crate::core::time::Timestamp;
use crate::database::ReplayFilter;
use crate::http::parameters::Parameters;
use crate::http::response::sanitized_lines;
use crate::notify::SinkCommands;

pub const TEST_PATH: &str = "/-/notify/test";
pub const REPLAY_PATH: &str = "/-/notify/replay";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestQuery {
    pub sink: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayQuery {
    pub sink: String,
    /// `KIND/STORE/JOB`, separated by commas. Empty: all jobs.
    #[serde(default)]
    pub jobs: String,
    pub since: Option<Timestamp>,
    /// Only events whose delivery has failed.
    #[serde(default)]
    pub failed: bool,
}

pub(super) fn router(sinks: SinkCommands) -> Router {
    Router::new().route(TEST_PATH, post(test)).route(REPLAY_PATH, post(replay)).with_state(sinks)
}

async fn test(State(sinks): State<SinkCommands>, Parameters(query): Parameters<TestQuery>) -> Response {
    respond(sinks.test(&query.sink).await)
}

async fn replay(State(sinks): State<SinkCommands>, Parameters(query): Parameters<ReplayQuery>) -> Response {
    let ReplayQuery { sink, jobs, since, failed } = query;
    let jobs: Result<Vec<JobKey>, _> = jobs.split(',').filter(|job| !job.is_empty()).map(str::parse).collect();
    let jobs = match jobs {
        Ok(jobs) => jobs,
        Err(error) => return (StatusCode::BAD_REQUEST, sanitized_lines(&error.to_string()) + "\n").into_response(),
    };
    let queued = sinks.replay(&sink, ReplayFilter { jobs, since, failed }).await;
    respond(queued.map(|queued| {
        format!("{sink}: {queued} {} be sent again", if queued == 1 { "event will" } else { "events will" })
    }))
}

/// An error of a sink is a 500: the command prints its text and ignores which status it has.
fn respond(result: Result<String, String>) -> Response {
    let (status, text) = match result {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error),
    };
    (status, sanitized_lines(&text) + "\n").into_response()
}
