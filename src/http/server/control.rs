//! The control socket: a Unix socket next to the database, which only its owner and root can use.
//!
//! It serves every route of the listener. It also serves the reload and the commands to sinks, which the
//! listener never accepts.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Router, serve as serve_http};
use rustix::fs::{Mode, fchmod};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixSocket};
use tokio_util::sync::CancellationToken;

use super::guard::guarded;
use crate::core::job::JobKey;
use crate::core::time::Timestamp;
use crate::database::ReplayFilter;
use crate::http::app_state::AppState;
use crate::http::parameters::Parameters;
use crate::http::response::sanitized_lines;
use crate::http::router::router;
use crate::notify::SinkCommands;
use crate::reload::ReloadRequests;

pub const RELOAD_PATH: &str = "/-/reload";
pub const TEST_PATH: &str = "/-/notify/test";
pub const REPLAY_PATH: &str = "/-/notify/replay";

/// The maximum number of connections that wait to be accepted. CLI subcommands open far fewer at a time.
const BACKLOG_MAX: u32 = 128;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestSinkQuery {
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

/// The socket of the daemon that uses this database.
#[must_use]
pub fn socket_path(database: &Path) -> PathBuf {
    database.with_added_extension("sock")
}

/// Listens at `path` and replaces an existing socket. The caller holds the lock of the database, so no other daemon uses it.
///
/// # Errors
/// There is a file that is not a socket, or the error of the system, for example because the path is longer than 107 bytes.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    remove(path)?;
    let socket = UnixSocket::new_stream()?;
    // Linux creates the file with this mode, so no other user can connect even for a moment.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(path)?;
    socket.listen(BACKLOG_MAX)
}

/// Removes the socket, if there is one.
///
/// # Errors
/// There is another file at `path`, or it cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "another file is there: move it away"))
        }
        found => found.and_then(|_| fs::remove_file(path)),
    }
}

/// Serves until `stop`. Connections still open at that time live until the process exits.
pub async fn serve(
    listener: UnixListener,
    state: AppState,
    reloads: ReloadRequests,
    sinks: SinkCommands,
    stop: CancellationToken,
) {
    let reload_routes = Router::new().route(RELOAD_PATH, post(reload)).with_state(reloads);
    let sink_routes =
        Router::new().route(TEST_PATH, post(test_sink)).route(REPLAY_PATH, post(replay_events)).with_state(sinks);
    let router = reload_routes.merge(sink_routes).merge(guarded(router(state.clone()), state.host_names));
    // `axum::serve` never returns.
    let _ = stop.run_until_cancelled(serve_http(listener, router).into_future()).await;
}

async fn reload(State(reloads): State<ReloadRequests>) -> Response {
    match reloads.send_and_wait().await {
        Some(Ok(applied)) => respond(StatusCode::OK, &applied),
        Some(Err(problems)) => respond(StatusCode::UNPROCESSABLE_ENTITY, &problems),
        None => respond(StatusCode::SERVICE_UNAVAILABLE, "refwatch is stopping"),
    }
}

async fn test_sink(State(sinks): State<SinkCommands>, Parameters(query): Parameters<TestSinkQuery>) -> Response {
    respond_to_command(sinks.test(&query.sink).await)
}

async fn replay_events(State(sinks): State<SinkCommands>, Parameters(query): Parameters<ReplayQuery>) -> Response {
    let ReplayQuery { sink, jobs, since, failed } = query;
    let jobs: Result<Vec<JobKey>, _> = jobs.split(',').filter(|job| !job.is_empty()).map(str::parse).collect();
    let jobs = match jobs {
        Ok(jobs) => jobs,
        Err(error) => return respond(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let queued = sinks.replay(&sink, ReplayFilter { jobs, since, failed }).await;
    let events_will = |count| if count == 1 { "event will" } else { "events will" };
    respond_to_command(queued.map(|count| format!("{sink}: {count} {} be sent again", events_will(count))))
}

/// Every error that `SinkCommands` returns has the status 500: the CLI subcommand prints the body, whatever the status is.
fn respond_to_command(result: Result<String, String>) -> Response {
    match result {
        Ok(text) => respond(StatusCode::OK, &text),
        Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

fn respond(status: StatusCode, text: &str) -> Response {
    (status, sanitized_lines(text) + "\n").into_response()
}
